"""Bulk data tokens: they come back as they went, for their study only, and say nothing of the member."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.values import ROMORANTIN

from dicomweb.links import FacadeLinks, LinkKey
from federation.errors import NotFound

KEY = LinkKey(bytes(range(64)))
STUDY = "1.2.250.1.423.7"
LINK = "/studies/1.2.250.1.423.7/series/1.2/instances/1.3/bulkdata/7fe00010?accept=a%2Fb"
_uids = st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,9}){0,4}", fullmatch=True)


@given(st.from_regex(r"[A-Za-z0-9_.-]{1,16}", fullmatch=True), _uids, st.text(max_size=300).filter(str.isprintable))
def test_a_token_comes_back_as_it_went(emetteur: str, study_uid: str, link: str) -> None:
    token = KEY.seal(emetteur, study_uid, link)
    assert KEY.open(token, study_uid) == (emetteur, link)
    assert set(token) <= set(string.ascii_letters + string.digits + "-_")


@given(_uids, _uids)
def test_a_token_is_bound_to_its_study(study_uid: str, other: str) -> None:
    token = KEY.seal("csrom41200", study_uid, LINK)
    if other != study_uid:
        with pytest.raises(NotFound):
            KEY.open(token, other)


def test_no_character_of_a_token_can_be_changed_dropped_or_added() -> None:
    for link in (LINK, LINK + "a", LINK + "ab"):  # every length of padding
        token = KEY.seal("csrom41200", STUDY, link)
        for i, c in enumerate(token):
            for forged in (
                token[:i] + ("B" if c != "B" else "C") + token[i + 1 :],
                token[:i] + token[i + 1 :],
                token[:i] + "!" + token[i:],
            ):
                with pytest.raises(NotFound):
                    KEY.open(forged, STUDY)
        for forged in (token + "=", token + "==", token + "A", "=" + token, token + "\n"):
            with pytest.raises(NotFound):
                KEY.open(forged, STUDY)


@given(st.one_of(st.text(max_size=80), st.binary(max_size=80).map(lambda b: base64.urlsafe_b64encode(b).decode())))
def test_made_up_tokens_are_not_found(token: str) -> None:
    with pytest.raises(NotFound):
        KEY.open(token, STUDY)


@pytest.mark.parametrize("token", ["", "=", "A", "AA", "\ud800", "é" * 20, "/../" * 10])
def test_odd_tokens_are_not_found(token: str) -> None:
    with pytest.raises(NotFound):
        KEY.open(token, STUDY)
    with pytest.raises(NotFound):
        KEY.open(token, "\ud800")


def test_another_key_opens_nothing() -> None:
    with pytest.raises(NotFound):
        LinkKey(bytes(64)).open(KEY.seal("csrom41200", STUDY, LINK), STUDY)


def test_a_token_says_nothing_of_the_member() -> None:
    token = KEY.seal("csrom41200", STUDY, LINK)
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for word in (b"csrom", b"studies", b"bulkdata", b"7fe0", STUDY.encode()):
        assert word not in raw
        assert word not in token.encode()


def test_one_reference_has_one_url() -> None:
    links = FacadeLinks(base="https://mirc.example", prefix="/folders/mirc-historique", key=KEY)
    url = links.bulkdata_url(ROMORANTIN, STUDY, "1.2", "1.3", LINK)
    assert url == links.bulkdata_url(ROMORANTIN, STUDY, "1.2", "1.3", LINK)
    assert url.startswith(
        "https://mirc.example/folders/mirc-historique/dicom-web/studies/1.2.250.1.423.7/series/1.2/instances/1.3/bulkdata/"
    )
    assert KEY.open(url.rpartition("/")[2], STUDY) == ("csrom41200", LINK)


def test_retrieve_urls_are_site_scoped() -> None:
    links = FacadeLinks(base="https://mirc.example", prefix="", key=KEY)
    root = "https://mirc.example/sites/csrom41200/dicom-web/studies/1.2.250.1.423.7"
    assert links.retrieve_url(ROMORANTIN, STUDY) == root
    assert links.retrieve_url(ROMORANTIN, STUDY, "1.2") == f"{root}/series/1.2"
    assert links.retrieve_url(ROMORANTIN, STUDY, "1.2", "1.3") == f"{root}/series/1.2/instances/1.3"
