"""Profiles order attempts and leave none out; what narrows names is proved, and for minutes only."""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from support.values import BLOIS

from federation.errors import MemberTimeout
from federation.habits import EXPLICIT, PROVED_S, CaseProofs, in_order, lacks
from federation.model import Accept, Attributes, Deadline, Form, Member, MemberRows, Query
from registry import Quirks, Site

MAYBE = st.none() | st.booleans()
CHOICES = st.lists(
    st.tuples(st.sampled_from(["application/dicom", "image/jpeg"]), st.sampled_from([None, "*", EXPLICIT, "1.2.3"])),
    max_size=6,
)


@given(form=st.sampled_from(Form), choices=CHOICES, explicit=MAYBE, stored=MAYBE)
def test_every_attempt_is_still_made(
    form: Form, choices: list[tuple[str, str | None]], explicit: bool | None, stored: bool | None
) -> None:
    site = replace(BLOIS, quirks=Quirks(gives_explicit=explicit, gives_stored=stored))
    attempts = [Accept(choices=(choice,)) for choice in choices]
    ordered = in_order(site, form, attempts)
    assert sorted(map(repr, ordered)) == sorted(map(repr, attempts))
    if False not in (explicit, stored):
        assert ordered == attempts


def test_what_was_refused_comes_last() -> None:
    attempts = [Accept(choices=(("application/dicom", syntax),)) for syntax in (EXPLICIT, "*", None)]
    site = replace(BLOIS, quirks=Quirks(gives_explicit=False))
    assert in_order(site, Form.DICOM, attempts) == [attempts[1], attempts[2], attempts[0]]
    assert in_order(site, Form.FRAMES, attempts) == attempts


def test_who_was_not_found_to_lack_a_form_is_taken_to_have_it() -> None:
    without = replace(BLOIS, quirks=Quirks(gives_thumbnail=False, gives_rendered=True))
    assert [form for form in Form if lacks(without, form)] == [Form.THUMBNAIL]
    assert not any(lacks(BLOIS, form) for form in Form)


class Named:
    """A member that holds two studies."""

    site: Site = BLOIS

    def __init__(self, *, any_case: bool = True, looks_at_names: bool = True, down: bool = False) -> None:
        self.any_case = any_case
        self.looks_at_names = looks_at_names
        self.down = down
        self.asked = 0

    async def search(self, query: Query, *, limit: int, deadline: Deadline) -> MemberRows:
        self.asked += 1
        if self.down:
            raise MemberTimeout("silent")
        fold = str.casefold if self.any_case else str
        pattern = query.filters.get("00100010", "*") if self.looks_at_names else "*"
        held = {"1.2.1": "DUPONT-L\u00c9VY^Marie", "1.2.2": "^^"}
        wanted = query.filters.get("0020000D")
        found = [
            row(uid, name)
            for uid, name in held.items()
            if wanted in (None, uid) and fnmatch.fnmatchcase(fold(name), fold(pattern))
        ]
        return MemberRows(rows=found[:limit])


def row(uid: str, name: str) -> Attributes:
    value: Any = {"vr": "PN", "Value": [{"Alphabetic": name}]}
    return {"0020000D": {"vr": "UI", "Value": [uid]}, "00100010": value}


async def holds(proofs: CaseProofs, named: Named, rows: list[Attributes] | None = None) -> bool:
    return await proofs.hold(cast("Member", named), rows or [], Deadline(5.0))


async def test_a_proof_counts_for_minutes() -> None:
    now = 1000.0
    proofs = CaseProofs(lambda: now)
    named = Named()
    assert await holds(proofs, named)
    asked = named.asked
    named.any_case = False
    assert await holds(proofs, named)  # nobody changes his PACS so fast
    assert named.asked == asked
    now += PROVED_S + 1
    assert not await holds(proofs, named)


async def test_a_proof_is_of_one_address() -> None:
    proofs = CaseProofs()
    assert await holds(proofs, Named())
    moved = Named(any_case=False)
    moved.site = replace(BLOIS, dicomweb="http://127.0.0.1:1/moved")
    assert not await holds(proofs, moved)


async def test_what_proves_nothing() -> None:
    for named in (Named(any_case=False), Named(looks_at_names=False), Named(down=True)):
        assert not await holds(CaseProofs(), named)


async def test_a_row_that_was_just_found_spares_a_question() -> None:
    with_row, without = Named(), Named()
    assert await holds(CaseProofs(), with_row, [row("1.2.1", "DUPONT-L\u00c9VY^Marie")])
    assert await holds(CaseProofs(), without)
    assert (with_row.asked, without.asked) == (2, 3)


async def test_a_member_that_ignores_limits_is_not_asked_for_just_any_rows() -> None:
    named = Named()
    named.site = replace(BLOIS, quirks=Quirks(honours_limit=False))
    assert not await holds(CaseProofs(), named)
    assert named.asked == 0
