"""What the demonstration prints once it runs: its address, who may sign in, and things to try."""

from __future__ import annotations

from imagora_demo import cast
from imagora_demo.enrolment import ANNE, CLAIRE, JULIE, LUC, PROFESSIONALS, Professional


def guide(url: str, settings: str) -> str:
    """Text for people: the address and commands that work as they stand."""
    study = cast.exam_of(cast.BIG_CT).study_uid
    up = ", ".join(f"{site.emetteur} ({site.name})" for site in cast.SITES if site.up)
    people = "\n".join(map(_line, PROFESSIONALS))
    withheld = cast.exam_of(cast.WITHHELD_EXAM)
    marie = next(exam for exam in cast.exams_of(cast.MARIE) if exam.site is cast.ROMORANTIN)
    return f"""
Imagora is at   {url}/
Members         {up}
Down            {cast.BLOIS.emetteur} ({cast.BLOIS.name})
Who may sign in (everybody is fictitious)
{people}

In a browser: {url}/ leads to the sign-in page; choose MARTIN CLAIRE
  {url}/                     every exam of the region that is shared
  {url}/viewer?StudyInstanceUIDs={study}
                                             a chest CT of 220 slices, from {cast.TOURS.name}
  {url}/portal/sign-out      and come back as somebody else

In a shell, in this folder: as Claire MARTIN, for an hour
  export IMAGORA_CONFIG={settings}
  export IMAGORA_TOKEN=$(.venv/bin/imagora token --as {CLAIRE.rpps})

Two women of nearly one name, born on one day; one IPP at two hospitals: two patients
  .venv/bin/imagora search --name 'DUPONT*^M*' --born 1960-05-12
  .venv/bin/imagora search --patient-id {marie.ipp}
  .venv/bin/imagora search --modality CT --since 2020 --scope {cast.TOURS.emetteur} --format csv
  .venv/bin/imagora sites list

Over DICOMweb: a name, whatever its accents; the Warning names the site that did not answer. One folder, one site
  curl -si -H "Authorization: Bearer $IMAGORA_TOKEN" '{url}/dicom-web/studies?PatientName=lefevre*' | head -c 1500
  curl -s -H "Authorization: Bearer $IMAGORA_TOKEN" '{url}/folders/mirc-centres-imagerie/dicom-web/studies'
  curl -s -H "Authorization: Bearer $IMAGORA_TOKEN" '{url}/sites/csrom41200/dicom-web/studies'

Who may not ask: who does not say who he is (401), and who has not signed the charter (403, with advice)
  curl -s -w '\\n' '{url}/dicom-web/studies'
  curl -s -w '\\n' -H "Authorization: Bearer $(.venv/bin/imagora token --as {JULIE.rpps})" '{url}/dicom-web/studies'

What patients refuse: one exam of CHARPENTIER, all of VASSEUR. VASEUR may be he: a correspondent decides on that ID
  .venv/bin/imagora oppositions list
  .venv/bin/imagora search --name 'charpentier*'
  .venv/bin/imagora search --name 'vas*eur*'
  .venv/bin/imagora oppositions review
  .venv/bin/imagora oppositions dismiss 1 --by {ANNE.rpps}
  .venv/bin/imagora search --name 'vas*eur*'

Refuse, live: what Marie DUPONT-LÉVY has at {marie.site.name}, and its copy at {cast.TOURS.name}, vanish within a second
  N=$(.venv/bin/imagora oppositions add --ipp {marie.ipp} --site {marie.site.emetteur} --by {LUC.rpps} --channel oral)
  .venv/bin/imagora search --patient-id {marie.ipp}
  .venv/bin/imagora oppositions lift $N --by {LUC.rpps}

An emergency: an exam whose patient could not be informed yet, shown to Claire alone, for two hours
  .venv/bin/imagora search --patient-id {withheld.ipp}
  curl -s -w '\\n' -H "Authorization: Bearer $IMAGORA_TOKEN" -H 'Content-Type: application/json' {url}/emergency \\
    -d '{{"patient_id": "{withheld.ipp}@{withheld.site.emetteur}", "reason": "Détresse vitale, patiente inconsciente"}}'
  .venv/bin/imagora search --patient-id {withheld.ipp}

Who saw what, and that nobody changed the record of it
  .venv/bin/imagora traces list --emergencies
  .venv/bin/imagora traces list --practitioner {CLAIRE.rpps} --limit 20
  .venv/bin/imagora traces verify

From Python (.venv/bin/python)
  import os, requests
  from dicomweb_client import DICOMwebClient
  session = requests.Session()
  session.headers['Authorization'] = f"Bearer {{os.environ['IMAGORA_TOKEN']}}"
  client = DICOMwebClient('{url}/dicom-web', session=session)
  client.search_for_studies(search_filters={{'PatientName': 'lefevre*'}})
  client.retrieve_study_metadata('{study}')
"""


def _line(person: Professional) -> str:
    words = [person.role, person.site.name]
    if not person.signed:
        words.append("charter not signed")
    return f"  {person.rpps}   {person.name.replace('^', ' '):<16}{', '.join(words)}"
