"""INS, the national health identity: a NIR or NIA of 13 characters and its key of two digits."""

from __future__ import annotations

import re

#: Assigning authorities of the INS: NIR, NIA, and those of tests and demonstrations.
OIDS = frozenset(f"1.2.250.1.213.1.4.{n}" for n in (8, 9, 10, 11))
_NUMBER = re.compile(r"[0-9]{5}(?:[0-9]{2}|2[AB])[0-9]{6}")


def key_of(number: str) -> str:
    """The key of the 13 characters: 97 less their remainder by 97; Corsica's letters count as 19 and 18."""
    department = {"2A": "19", "2B": "18"}.get(number[5:7], number[5:7])
    return f"{97 - int(number[:5] + department + number[7:]) % 97:02d}"


def canonical(text: str) -> str | None:
    """The INS as 15 characters, its key added where it is missing; None if this is none."""
    plain = re.sub(r"[\s.-]", "", text).upper()
    number, key = plain[:13], plain[13:]
    if not _NUMBER.fullmatch(number) or key not in ("", key_of(number)):
        return None
    return number + key_of(number)
