"""Rows, members and answers as the tests of searching see them."""

from __future__ import annotations

import fnmatch
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import requests
from imagora_demo import exams
from support.peer import Behaviour, Connection, Request

Row = dict[str, Any]
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
UID_OF_COLLECTION = {"studies": STUDY, "series": SERIES, "instances": INSTANCE}


# Rows -----------------------------------------------------------------------------------------------------------


def row(
    uid: str,
    patient_id: str | None = "1",
    name: str = "DUPONT^MARIE",
    *,
    born: str = "19600512",
    sex: str = "F",
    date: str = "20240101",
    time: str = "101500",
    **more: Any,
) -> Row:
    """A study's row as a member gives it. `more` by tag, with a `t` before it: `t00200010={"vr": …}`."""
    made: Row = {
        STUDY: {"vr": "UI", "Value": [uid]},
        "00080020": {"vr": "DA", "Value": [date]} if date else {"vr": "DA"},
        "00080030": {"vr": "TM", "Value": [time]} if time else {"vr": "TM"},
        "00080061": {"vr": "CS", "Value": ["CT"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]},
        "00100030": {"vr": "DA", "Value": [born]} if born else {"vr": "DA"},
        "00100040": {"vr": "CS", "Value": [sex]} if sex else {"vr": "CS"},
        "00201206": {"vr": "IS", "Value": [1]},
        "00201208": {"vr": "IS", "Value": [1]},
    }
    if patient_id is not None:
        made["00100020"] = {"vr": "LO", "Value": [patient_id]}
    made.update({tag.removeprefix("t"): content for tag, content in more.items()})
    return made


def series_row(study: Row, uid: str, *, number: int | None = 1, modality: str = "CT") -> Row:
    below = {tag: content for tag, content in study.items() if tag not in ("00201206", "00201208", "00080061")}
    below[SERIES] = {"vr": "UI", "Value": [uid]}
    below["00080060"] = {"vr": "CS", "Value": [modality]}
    below["00200011"] = {"vr": "IS", "Value": [number]} if number is not None else {"vr": "IS"}
    below["00201209"] = {"vr": "IS", "Value": [1]}
    return below


def instance_row(series: Row, uid: str, *, number: int | None = 1) -> Row:
    below = {tag: content for tag, content in series.items() if tag != "00201209"}
    below[INSTANCE] = {"vr": "UI", "Value": [uid]}
    below["00080016"] = {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]}
    below["00200013"] = {"vr": "IS", "Value": [number]} if number is not None else {"vr": "IS"}
    return below


def light_rows(count: int, seed: str) -> list[Row]:
    """`count` studies, each of another patient, on dates that repeat."""
    dice = random.Random(seed)
    return [
        row(
            exams.uid(seed, number),
            str(number),
            f"{dice.choice(exams.FAMILY_NAMES)}^{dice.choice(exams.GIVEN_NAMES)}",
            born=exams.any_date(dice, 1930, 2020),
            date=exams.any_date(dice, 2022, 2023) if number % 40 else "",
            time=f"{dice.randrange(7, 20):02}{dice.randrange(60):02}00" if number % 7 else "",
        )
        for number in range(count)
    ]


# Members --------------------------------------------------------------------------------------------------------


def capping(found: Sequence[Row], *, most: int = 100, honours_offset: bool = True) -> Behaviour:
    """Gives at most `most` rows an answer and says how many there are besides."""

    async def behave(request: Request, connection: Connection) -> None:
        offset = int((request.values("offset") or ["0"])[0]) if honours_offset else 0
        given = list(found)[offset : offset + most]
        rest = len(found) - offset - len(given)
        warning = f'299 archive "There are {rest} additional results that can be requested"'
        await connection.json(given, **({"Warning": warning} if rest > 0 else {}))

    return behave


def strict(studies: Sequence[Row], series: Sequence[Row] = (), instances: Sequence[Row] = ()) -> Behaviour:
    """A PACS that matches to the letter: it tells cases and accents apart and knows no attribute but its own.

    It has the nested paths, lists of UIDs, wildcards and ranges of dates and of times, each by
    itself, and pages.
    """
    below = {"studies": studies, "series": series, "instances": instances}

    async def behave(request: Request, connection: Connection) -> None:
        parts = request.path.strip("/").split("/")
        if parts[-1] not in below:
            await connection.answer(404, b"", "text/plain")
            return
        wanted = dict(zip((STUDY, SERIES), parts[1:-1:2], strict=False)) | {
            k: v for k, v in request.query if k not in ("limit", "offset", "includefield")
        }
        found = [r for r in below[parts[-1]] if all(_matches(r, tag, value) for tag, value in wanted.items())]
        offset = int((request.values("offset") or ["0"])[0])
        limit = int((request.values("limit") or [str(len(found))])[0])
        await connection.json(found[offset : offset + limit])

    return behave


def _matches(candidate: Row, path: str, wanted: str) -> bool:
    tag, dot, rest = path.partition(".")
    values = candidate.get(tag, {}).get("Value", [])
    if dot:
        return any(_matches(item, rest, wanted) for item in values)
    texts = [v.get("Alphabetic", "") if isinstance(v, dict) else str(v) for v in values]
    if candidate.get(tag, {}).get("vr") == "UI":
        return any(t in re.split(r"[\\,]", wanted) for t in texts)
    if candidate.get(tag, {}).get("vr") in ("DA", "TM") and "-" in wanted:
        low, high = wanted.split("-")
        return any(low <= t and t[: len(high)] <= high for t in texts)
    return any(fnmatch.fnmatchcase(t, wanted.replace("[", "[[]")) for t in texts)


def tree(studies: Sequence[Row], *, per_study: int = 1, modality: str = "CT") -> Behaviour:
    """`strict` with series and instances made up below the studies: `<study>.<n>`, `<study>.<n>.1`."""
    series = [
        series_row(s, f"{value(s, STUDY)}.{n}", number=n, modality=modality)
        for s in studies
        for n in range(1, per_study + 1)
    ]
    return strict(studies, series, [instance_row(s, f"{value(s, SERIES)}.1") for s in series])


# Answers --------------------------------------------------------------------------------------------------------


def get(url: str, *, params: Any = None, timeout: float = 30.0, **headers: str) -> requests.Response:
    return requests.get(
        url, params=params, headers={k.replace("_", "-"): v for k, v in headers.items()}, timeout=timeout
    )


def value(found: Row, tag: str) -> Any:
    """The first value, None if there is none."""
    return (found.get(tag, {}).get("Value") or [None])[0]


def values(found: Row, tag: str) -> list[Any]:
    return list(found.get(tag, {}).get("Value") or [])


def uids(answer: requests.Response, tag: str = STUDY) -> list[str]:
    return [value(r, tag) for r in rows_of(answer)]


def rows_of(answer: requests.Response) -> list[Row]:
    """The rows of an answer that found some or none."""
    if answer.status_code == 204:
        assert answer.content == b""
        return []
    assert answer.status_code == 200, (answer.status_code, answer.text)
    found: list[Row] = answer.json()
    return found


def warnings_of(answer: requests.Response) -> list[str]:
    """The sentences of the answer's Warning headers."""
    given: list[str] = answer.raw.headers.getlist("Warning")
    assert all(w.startswith("299 imagora: ") for w in given), given
    return [w.removeprefix("299 imagora: ") for w in given]


def sources(answer: requests.Response) -> dict[str, tuple[str, int]]:
    """EMETTEUR → (status, rows)."""
    items = [item.split(";") for item in answer.headers["Imagora-Sources"].split(", ")]
    return {emetteur: (status, int(rows)) for emetteur, status, rows, _ in items}


_REMAINING = re.compile(r"There are (at least )?(\d+) additional results that can be requested")


def remaining(answer: requests.Response) -> tuple[int, bool]:
    """→ (rows that follow the page, whether that is a lower bound)."""
    said = [m for w in warnings_of(answer) if (m := _REMAINING.fullmatch(w))]
    assert len(said) <= 1
    return (int(said[0][2]), said[0][1] is not None) if said else (0, False)


def walk(url: str, limit: int, check: Callable[[requests.Response, int], None] | None = None) -> list[Row]:
    """Page through a search to its end. `check` is given each answer and the offset after its rows."""
    found: list[Row] = []
    with requests.Session() as session:
        while True:
            answer = session.get(url, params={"limit": limit, "offset": len(found)}, timeout=30)
            page = rows_of(answer)
            found += page
            if check is not None:
                check(answer, len(found))
            if not page:
                return found
