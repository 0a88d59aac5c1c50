from __future__ import annotations

import pytest

from registry.model import SiteStatus
from registry.table import Table, TableError, read_table

HEADER = "emetteur,site,name,folder,availability,status"


def test_the_regions_own_table_is_read_as_it_is(region: Table) -> None:
    statuses = [site.status for site in region.sites]
    assert statuses.count(SiteStatus.MEMBER) == 21
    assert statuses.count(SiteStatus.UNREFERENCED) == 1
    assert [folder.name for folder in region.folders] == ["MIRC historique", "MIRC Centres Imagerie"]
    sites = {site.emetteur: site for site in region.sites}
    assert sites["csven41106"].folder is None
    assert sites["csgat45200"].availability == "j+1"
    assert sites["scsosj18230"].name == "Centre St Jean – St Douillard"
    assert not any(site.asked for site in region.sites)


def test_columns_stand_in_any_order_with_addresses_or_not() -> None:
    text = "site;status;emetteur;name;folder;availability;dicomweb;aet;host;port;oid\r\n"
    text += "1;;csa;A;;;https://pacs.example/dicom-web/;;;;1.2.3\r\n\r\n2;MEMBER;csb;B;F;j+1;;CSB;10.0.0.1;4242;\r\n"
    first, second = read_table(b"\xef\xbb\xbf" + text.encode()).sites
    assert (first.dicomweb, first.oid, first.status) == ("https://pacs.example/dicom-web", "1.2.3", SiteStatus.MEMBER)
    assert (second.aet, second.host, second.port, second.folder) == ("CSB", "10.0.0.1", 4242, "F")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: column 'emetteur' is missing"),
        ("emetteur,site", "line 1: column 'name' is missing"),
        (HEADER + ",colour", "line 1: column 7 ('colour') is unknown"),
        (HEADER + ",site", "line 1: column 'site' stands twice"),
        (HEADER, "line 2: there is no site"),
        (HEADER + "\ncsa,1,A,,", "line 2: has 5 cells where the first line has 6"),
        (HEADER + "\n\ncs a,1,A,,,member", "line 3, column emetteur: 'cs a' is not an EMETTEUR"),
        (HEADER + "\ncsa,,A,,,member", "line 2, column site: is empty"),
        (HEADER + "\ncsa,x,A,,,member", "line 2, column site: 'x' is not the number"),
        (HEADER + "\ncsa,٣,A,,,member", "line 2, column site: '٣' is not the number"),
        (HEADER + "\ncsa,1,,,,member", "line 2, column name: is empty"),
        (HEADER + f"\ncsa,1,{'A' * 65},,,member", "line 2, column name:"),
        (HEADER + "\ncsa,1,A\\B,,,member", "line 2, column name:"),
        (HEADER + "\ncsa,1,A,,,active", "line 2, column status: 'active' is not a status: write member, suspended"),
        (HEADER + ",dicomweb\ncsa,1,A,,,,ftp://x/", "line 2, column dicomweb: the URL must start with http"),
        (HEADER + ",dicomweb\ncsa,1,A,,,,http://u:p@x/", "line 2, column dicomweb: credentials do not belong"),
        (HEADER + ",port\ncsa,1,A,,,,0", "line 2, column port: '0' is not a port"),
        (HEADER + ",aet,host,port\ncsa,1,A,,,,X,,", "line 2, columns aet, host, port: aet, host and port belong"),
        (HEADER + ",oid\ncsa,1,A,,,,1.02", "line 2, column oid: '1.02' is not an OID"),
        (HEADER + '\n"csa,1,A,,,member', "line 2: not CSV"),
        (HEADER + '\ncsa,1,"A\nB",,,member\ncs b,2,B,,,member', "line 4, column emetteur"),
    ],
)
def test_a_bad_cell_is_named_by_line_and_column(text: str, problem: str) -> None:
    with pytest.raises(TableError) as caught:
        read_table(text.encode())
    assert any(line.startswith(problem) for line in caught.value.problems), caught.value.problems


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(TableError) as caught:
        read_table(f"{HEADER}\ncs a,x,A,,,member\ncsb,2,B,,,no\n".encode())
    assert len(caught.value.problems) == 3


def test_a_table_in_another_encoding_is_told() -> None:
    with pytest.raises(TableError, match="line 2: not UTF-8"):
        read_table(HEADER.encode() + "\ncsa,1,Vendôme,,,".encode("cp1252"))
