"""What the demonstration prints once it runs: its address, and things to try."""

from __future__ import annotations

from imagora_demo import cast


def guide(url: str, settings: str) -> str:
    """Text for people: the address and commands that work as they stand."""
    study = next(exam.study_uid for exam in cast.EXAMS if exam.key == cast.BIG_CT)
    up = ", ".join(f"{site.emetteur} ({site.name})" for site in cast.SITES if site.up)
    return f"""
Imagora is at   {url}/
Members         {up}
Down            {cast.BLOIS.emetteur} ({cast.BLOIS.name})

In a browser
  {url}/                     every exam of the region
  {url}/viewer?StudyInstanceUIDs={study}
                                             a chest CT of 220 slices, from {cast.TOURS.name}

Over DICOMweb: a name, whatever its accents; the Warning names the site that did not answer
  curl -si '{url}/dicom-web/studies?PatientName=lefevre*' -H 'Accept: application/dicom+json' | head -c 1500
One IPP at two hospitals: two patients
  curl -s '{url}/dicom-web/studies?PatientID=4547' | python3 -c \\
    'import json, sys; [print(r["00100020"]["Value"], r["00100010"]["Value"]) for r in json.load(sys.stdin)]'
One folder, one site
  curl -s '{url}/folders/mirc-centres-imagerie/dicom-web/studies'
  curl -s '{url}/sites/csrom41200/dicom-web/studies'

From a shell: two women of nearly one name, born on one day
  .venv/bin/imagora search --config {settings} --name 'DUPONT*^M*' --born 1960-05-12
  .venv/bin/imagora search --config {settings} --modality CT --since 2020 --scope cstrs37000 --format csv
  .venv/bin/imagora sites list --config {settings}

From Python (.venv/bin/python)
  from dicomweb_client import DICOMwebClient
  client = DICOMwebClient('{url}/dicom-web')
  client.search_for_studies(search_filters={{'PatientName': 'lefevre*'}})
  client.retrieve_study_metadata('{study}')
"""
