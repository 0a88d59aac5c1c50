"""`app-config.js`: what it lists, and that no name can break out of it."""

from __future__ import annotations

import json
import re
from typing import Any

from viewer_harness import directory

from portal.ohif_config import app_config, site_source
from registry import Directory, Folder, Site

SETTINGS = re.compile(r"var settings = (\{.*?\n\});\n", re.DOTALL)


def settings(picture: Directory) -> dict[str, Any]:
    found = SETTINGS.search(app_config(picture, federation="MIRC"))
    assert found
    read: dict[str, Any] = json.loads(found[1])
    return read


def test_one_data_source_per_scope_with_members_that_are_asked() -> None:
    config = settings(directory())
    roots = {s["sourceName"]: s["configuration"]["wadoRoot"] for s in config["dataSources"]}
    assert roots == {
        "imagora": "/dicom-web",
        "folder-mirc-historique": "/folders/mirc-historique/dicom-web",
        "site-csrom41200": "/sites/csrom41200/dicom-web",
        "site-cschb41000": "/sites/cschb41000/dicom-web",
    }
    assert config["defaultDataSourceName"] == "imagora"
    names = {s["sourceName"]: s["configuration"]["friendlyName"] for s in config["dataSources"]}
    assert names["imagora"] == "MIRC"
    assert names["site-csrom41200"] == "Romorantin (CH) (csrom41200)"


def test_a_site_named_like_our_own_source_is_kept_apart() -> None:
    site = Site(emetteur="imagora", number=1, name="Site", dicomweb="http://127.0.0.1/dicom-web")
    names = [s["sourceName"] for s in settings(Directory([site]))["dataSources"]]
    assert names == ["imagora", site_source(site)]


def test_names_cannot_break_out_of_the_script() -> None:
    name = "</script><script>alert(1)//<!-- \u2028 \"';\\ & é"
    site = Site(emetteur="a", number=1, name=name, folder="F", dicomweb="http://127.0.0.1/dicom-web")
    script = app_config(Directory([site], [Folder(name="F")]), federation=name)
    assert script.isascii()
    assert not re.search(r"</|<!--|]]>", script)
    found = SETTINGS.search(script)
    assert found
    assert json.loads(found[1])["imagora"]["siteNames"] == {"a": name}


def test_no_outside_host_and_no_member_address_is_named() -> None:
    script = app_config(directory(), federation="MIRC")
    assert "http" not in script.replace("httpErrorHandler", "")
    assert "127.0.0.1" not in script
