"""What the benchmark fills databases and members with."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import orjson
from imagora_bench import filling, shelf
from imagora_bench.processes import write_settings

from consent.traits import Traits
from registry.database import Database

DRAWN = 200


def row(traits: Traits) -> dict[str, Any]:
    return {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": traits.name.upper()}]},
        "00100030": {"vr": "DA", "Value": [traits.birth_date]},
        "00100040": {"vr": "CS", "Value": [traits.sex]},
    }


async def kinds(url: str, spared: Collection[int]) -> dict[int, str]:
    """Number → kind of the oppositions that are written."""
    await filling.oppose(url, DRAWN, emetteurs=shelf.NAMES, spared=spared)
    async with Database(url, connections_max=1) as database:
        return {row["id"]: row["kind"] for row in await database.fetch("SELECT id, kind FROM opposition")}


def test_who_may_be_a_patient_of_the_members_is_no_opposed_person_and_nobody_else(
    postgres: Callable[[], str], tmp_path: Path
) -> None:
    settings = tmp_path / "imagora.toml"
    sites = dict.fromkeys((*shelf.NAMES, filling.HOME), "http://127.0.0.1:1/dicom-web")
    write_settings(settings, port=1, state=tmp_path / "state", sites=sites)
    server = re.sub(r"@/\w+\?", "@/postgres?", postgres())
    url = asyncio.run(filling.create(server, "bench_data", settings))

    drawn = asyncio.run(filling.persons(url, DRAWN))
    assert len(drawn) == DRAWN * 3 // 10
    himself, nearly, namesake, *_ = drawn
    found = [
        row(drawn[himself]),
        row(drawn[nearly]._replace(sex="F" if drawn[nearly].sex == "M" else "M")),
        row(drawn[namesake]._replace(birth_date="18990101")),
    ]
    spared = asyncio.run(filling.alike(url, DRAWN, found))
    assert spared == [himself, nearly]

    written = asyncio.run(kinds(url, spared))
    assert {number for number, kind in written.items() if kind == "person"} == drawn.keys() - {himself, nearly}
    assert Counter(written.values()) == {"study": 80, "patient": 62, "person": 58}


def test_shelf_finds_by_name_date_and_uid_what_its_rows_say() -> None:
    count = 90
    whole = shelf.Shelf(count)
    rows = shelf.rows_of("bench-b", 30)
    martin = [r for r in rows if r["00100010"]["Value"][0]["Alphabetic"].startswith("M")]
    late = [r for r in rows if r["00080020"]["Value"][0] >= "20200101"]
    two = [r["0020000D"]["Value"][0] for r in rows[:2]]
    assert 0 < len(martin) < 30
    assert 0 < len(late) < 30
    for query, expected in (
        ("", rows),
        ("00100010=m%3F*", martin),
        ("00080020=20200101-", late),
        (f"0020000D={','.join(two)},1.2.3", rows[:2]),
        ("0020000D=1.2.3", []),
    ):
        for _ in range(2):  # made, then ready
            assert whole.answer(f"/bench-b/dicom-web/studies?{query}").endswith(b"\r\n\r\n" + orjson.dumps(expected))
