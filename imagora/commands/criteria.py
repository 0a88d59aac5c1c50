"""What people type to say which exams they mean. `click.BadParameter` says what to type instead."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date

import click

from federation.model import UID_PATTERN

_FORMS = (
    re.compile(r"(?P<year>\d{4})(-(?P<month>\d{1,2})(-(?P<day>\d{1,2}))?)?"),
    re.compile(r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})?"),
    re.compile(r"((?P<day>\d{1,2})/)?(?P<month>\d{1,2})/(?P<year>\d{4})"),
)
_WRITE = "write 1960-05-12, 19600512 or 12/05/1960"


@dataclass(frozen=True, slots=True)
class Period:
    """The days that a date stands for, both included: a day, a month or a year."""

    first: date
    last: date


def period(text: str) -> Period:
    """`1960-05-12`, `19600512`, `12/05/1960`; also `2020-03`, `202003`, `03/2020` and `2020`."""
    for form in _FORMS:
        if match := form.fullmatch(text.strip()):
            year, month, day = (int(match[name] or 0) for name in ("year", "month", "day"))
            try:
                first = date(year, month or 1, day or 1)
            except ValueError:
                break
            last_month = first.replace(month=month or 12)
            last_day = day or calendar.monthrange(year, last_month.month)[1]
            return Period(first, last_month.replace(day=last_day))
    raise click.BadParameter(f"{text!r} is not a date: {_WRITE}")


def day(text: str) -> date:
    """A whole date."""
    meant = period(text)
    if meant.first != meant.last:
        raise click.BadParameter(f"{text!r} is not a whole date: {_WRITE}")
    return meant.first


def name(text: str) -> str:
    """A person's name: `NOM^PRENOM`, or `nom,prenom` as people type it → `nom^prenom`."""
    typed = text.strip()
    if "^" not in typed and "," in typed:
        typed = "^".join(part.strip() for part in typed.split(",", 1))
    if not typed.strip("^ ") or "\\" in typed or not typed.isprintable():
        raise click.BadParameter(
            f"{text!r} is not a name: write 'NOM^PRENOM' or 'nom,prenom', with * for what you leave out"
        )
    return typed


def words(text: str) -> str:
    """Any text that one value of a query can hold."""
    if not (typed := text.strip()) or "\\" in typed or not typed.isprintable():
        raise click.BadParameter("the value is empty, or has a backslash or a control character in it")
    return typed


def modality(text: str) -> str:
    """A modality's code (PS3.3 C.7.3.1.1.1), typed in either case."""
    if not re.fullmatch(r"[A-Z0-9_]{2,16}", code := text.strip().upper()):
        raise click.BadParameter(f"{text!r} is not a modality, as CT, MR, US, DX or MG are")
    return code


def uid(text: str) -> str:
    if not UID_PATTERN.fullmatch(typed := text.strip()):
        raise click.BadParameter(f"{text!r} is not a UID: digits and points, at most 64")
    return typed
