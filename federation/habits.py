"""What members' profiles say, and what of it is proved: an old or wrong profile costs time, never rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from federation import names
from federation.errors import MemberError
from federation.identity import text_of
from federation.matching import PATIENT_NAME
from federation.model import Accept, Attributes, Deadline, Form, Level, Member, Query, Scope
from registry import Site

STUDY_UID = "0020000D"
EXPLICIT = "1.2.840.10008.1.2.1"
#: How long a proof counts, in seconds.
PROVED_S = 300.0
#: In front of a name it makes another that nobody bears.
_STRANGE = "QXZ*"
_LETTERS_MIN = 3


def lacks(site: Site, form: Form) -> bool:
    """True if its PACS was found not to give this form when it was checked: others are asked before it."""
    offers = {Form.RENDERED: site.quirks.gives_rendered, Form.THUMBNAIL: site.quirks.gives_thumbnail}
    return offers.get(form) is False


def in_order(site: Site, form: Form, attempts: Sequence[Accept]) -> list[Accept]:
    """All of them; what its PACS was found to refuse comes last. A client takes any of its choices."""
    refused = {EXPLICIT: site.quirks.gives_explicit is False, "*": site.quirks.gives_stored is False}
    if form is not Form.DICOM:
        return list(attempts)
    return sorted(attempts, key=lambda attempt: refused.get(attempt.choices[0][1] or "", False))


class CaseProofs:
    """Whether members find names in any case, as their profiles say, proved on a patient that they named.

    A member that tells cases apart misses names for the narrow patterns of one that does not, and the answer does not
    show it. So what a profile says counts only while it was proved within the last minutes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._proved: dict[tuple[str, str | None], float] = {}

    async def hold(self, member: Member, rows: Sequence[Attributes], deadline: Deadline) -> bool:
        """`rows` are what it has just found. At most three small questions, then none for minutes."""
        key = (member.site.emetteur, member.site.dicomweb)
        if self._proved.get(key, float("-inf")) > self._clock():
            return True
        try:
            witness = _witness(rows)
            if witness is None and member.site.quirks.honours_limit is not False:  # it might send all that it has
                witness = _witness((await member.search(_SOME, limit=5, deadline=deadline)).rows)
            if witness is None or not await _ignores_case(member, *witness, deadline):
                return False
        except MemberError:
            return False
        self._proved[key] = self._clock() + PROVED_S
        return True


_SOME = Query(level=Level.STUDY, scope=Scope(), include=frozenset({PATIENT_NAME}))


def _witness(rows: Sequence[Attributes]) -> tuple[str, str] | None:
    """→ (StudyInstanceUID, name) that says something of cases."""
    for row in rows:
        name = names.alphabetic((row.get(PATIENT_NAME, {}).get("Value") or [""])[0])
        uid = text_of(row, STUDY_UID)
        if uid and sum(c.isascii() and c.isalpha() for c in name) >= _LETTERS_MIN:
            return uid, name
    return None


async def _ignores_case(member: Member, uid: str, name: str, deadline: Deadline) -> bool:
    """It finds the name in the other case, and it does look at names: it does not find a strange one."""
    other = "".join(c.swapcase() if c.isascii() and c.isalnum() else "*" for c in name) + "*"

    async def finds(pattern: str) -> bool:
        query = Query(level=Level.STUDY, scope=Scope(), filters={STUDY_UID: uid, PATIENT_NAME: pattern})
        answer = await member.search(query, limit=2, deadline=deadline)
        return any(text_of(row, STUDY_UID) == uid for row in answer.rows)

    return await finds(other) and not await finds(_STRANGE + other)
