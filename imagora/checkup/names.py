"""How a member compares names: what it takes for the same decides how searches must ask it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from enum import Enum, auto

from dicomweb.wire import query as wire_query
from federation import names
from federation.identity import text_of
from federation.model import Attributes
from imagora.checkup.asking import NAME, STUDY_UID, Asking, Result
from registry.profiles import Feature

#: Where no name with an accent was seen, names with these are asked for.
_ACCENTED = "ÉéÈÇ"
#: In front of a name it makes another that nobody bears.
_STRANGE = "QXZ"


class _Narrowing(Enum):
    """What is asked besides the name, so that no more rows than needed come."""

    UID = auto()
    NOTHING = auto()


class Names:
    """Asks for patients that the member itself has just named, written otherwise."""

    def __init__(self, asking: Asking, rows: Sequence[Attributes]) -> None:
        self._asking = asking
        self._known = [(text_of(row, STUDY_UID), name) for row in rows if (name := _name(row)) and _plain(name)]

        self._literal = False  # True if percent-encoded text was seen to be taken as it stands

    async def examine(self) -> None:
        note = self._asking.checkup.note
        async with self._asking.about("names", Result.UNKNOWN):
            known = [(u, n) for u, n in self._known if sum(map(_ascii_letter, n)) > 2]
            if not known:
                note("names", Result.UNKNOWN, "no name was seen that could be tried")
                return
            found = await self._telling(sorted(known, key=lambda one: not one[1].isascii()))
            if found is None:
                return
            uid, name, narrowing = found
            await self._case(uid, name, narrowing)
            await self._one_letter(uid, name, narrowing)
            await self._accents(narrowing)
            if self._literal:
                self._asking.checkup.know(Feature.PERCENT_DECODING, False)

    async def _telling(self, known: Sequence[tuple[str, str]]) -> tuple[str, str, _Narrowing] | None:
        """A name that is found, and a question that tells it from others. None if there is none, which is noted."""
        note, know = self._asking.checkup.note, self._asking.checkup.know
        wildcards_fail = forgets = False
        for uid, name in known:
            for narrowing in _Narrowing:
                forgets = await self._finds(_STRANGE + name, uid, name, narrowing)
                if forgets:
                    continue  # it looks at the UID and forgets the name
                if await self._finds(_loose(name), uid, name, narrowing):
                    know(Feature.WILDCARD_STAR, True)
                    return uid, name, narrowing
                # A PACS may list a study under another name than its patient is filed under: then the next is tried.
                wildcards_fail = wildcards_fail or await self._finds(name, uid, name, narrowing)
                break
        if forgets:
            note("names", Result.LIMIT, "it does not look at the name asked for; names are compared here")
        elif wildcards_fail:
            know(Feature.WILDCARD_STAR, False)
            note("names", Result.FAILED, "* in a name finds nothing: no search by name would find its exams")
        else:
            note("names", Result.LIMIT, "does not find exams under the names that it lists them with")
        return None

    async def _case(self, uid: str, name: str, narrowing: _Narrowing) -> None:
        """As searches would ask then: with wildcards, for some compare with and without them differently."""
        other = "".join(c.swapcase() if c.isascii() else c for c in name)
        ignores = await self._finds(_loose(other), uid, name, narrowing)
        self._asking.checkup.know(Feature.NAMES_IN_ANY_CASE, ignores)
        if ignores:
            self._asking.checkup.note("names", Result.OK, "are found in capitals and in small letters")
        else:
            text = "are found only as they are written, in capitals or small letters; more is asked and compared here"
            self._asking.checkup.note("names", Result.LIMIT, text)

    async def _one_letter(self, uid: str, name: str, narrowing: _Narrowing) -> None:
        """`?` for one letter (PS3.4 §C.2.2.2.4)."""
        place = next(i for i, c in enumerate(name) if i and _ascii_letter(c))
        knows = await self._finds(_loose(f"{name[:place]}?{name[place + 1 :]}"), uid, name, narrowing)
        self._asking.checkup.know(Feature.WILDCARD_QUESTION, knows)
        if knows:
            self._asking.checkup.note("wildcards", Result.OK, "* and ? stand for letters of a name")
        else:
            text = "? does not stand for one letter; names are looked for with * then, and compared here"
            self._asking.checkup.note("wildcards", Result.LIMIT, text)

    async def _accents(self, narrowing: _Narrowing) -> None:
        note = self._asking.checkup.note
        async with self._asking.about("accents", Result.UNKNOWN):
            known = next(((u, n) for u, n in self._known if _bare(n) != n), None) or await self._accented()
            if known is None:
                note("accents", Result.UNKNOWN, "no name with an accent was found to try")
                return
            uid, name = known
            ignores = await self._finds(_bare(name), uid, name, narrowing)
            self._asking.checkup.know(Feature.NAMES_WITHOUT_ACCENTS, ignores)
            if ignores:
                note("accents", Result.OK, "names are found without their accents")
            else:
                note(
                    "accents", Result.OK, "names are not found without their accents; searches leave such letters open"
                )

    async def _accented(self) -> tuple[str, str] | None:
        """→ (StudyInstanceUID, name) of somebody whose name has an accent."""
        for letter in _ACCENTED:
            page = await self._asking.page("/studies", {NAME: f"*{letter}*"}, include=(NAME,), limit=1, most=2)
            for row in page.rows:
                name = _name(row)
                if _plain(name) and _bare(name) != name:
                    return text_of(row, STUDY_UID), name
        return None

    async def _finds(self, pattern: str, uid: str, name: str, narrowing: _Narrowing) -> bool:
        """Does `pattern` find the patient of that name? Asked as searches ask: again without what must be encoded."""
        filters = {NAME: pattern} if narrowing is _Narrowing.NOTHING else {NAME: pattern, STUDY_UID: uid}
        page = await self._asking.page("/studies", filters, include=(NAME,))
        if page.rows or wire_query.is_plain(filters):
            return any(_name(row) == name for row in page.rows)
        for plain in wire_query.without_escapes(filters):
            page = await self._asking.page("/studies", plain, include=(NAME,))
            if any(_name(row) == name for row in page.rows):
                self._literal = True
                return True
        return False


def _name(row: Attributes) -> str:
    values = row.get(NAME, {}).get("Value") or [""]
    return names.alphabetic(values[0])


def _plain(name: str) -> bool:
    """True if nothing in it means something else in a query."""
    return not any(c in name for c in "*?\\=,")


def _ascii_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


def _loose(name: str) -> str:
    """As searches ask: `*` for letters whose accent is another question, and at the end."""
    return re.sub(r"\*+", "*", "".join(c if c.isascii() else "*" for c in name[:-1]) + "*")


def _bare(name: str) -> str:
    """Without accents, case kept: `É` → `E`. Letters that are no base letter with an accent stay."""
    return "".join(unicodedata.normalize("NFD", c)[0] if names.fold(c) != c.lower() else c for c in name)
