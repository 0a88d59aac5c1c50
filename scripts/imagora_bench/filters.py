"""What it costs to search by name, over members whose answers lie ready.

Another holder of what one member found may have it under another name, so all are asked a second time. Beside it stand
searches that find as many studies: by date, of which the same holds, and by UIDs, which no holder says otherwise, so
that nobody is asked again.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from imagora_bench import shelf
from imagora_bench.parts import Bench
from imagora_bench.processes import BenchError
from imagora_bench.ratios import Row, compare, interleave

#: As many as fit into one value of a query (4096 characters).
_UIDS_MAX = 64


def compare_filters(bench: Bench, studies: str) -> list[Row]:
    """`studies`: where a server over the shelf's members is searched."""
    rows = shelf.member_rows(bench.plan.rows)
    many, few = _of_one_initial(rows, len(rows)), _of_one_initial(rows, _UIDS_MAX)
    uids = ",".join(_text(row, "0020000D") for row in few)
    return [
        _compare(bench, studies, many, "date", f"StudyDate={_span(rows, len(many))}"),
        _compare(bench, studies, few, "UIDs", f"StudyInstanceUID={uids}"),
    ]


def _compare(bench: Bench, studies: str, found: list[dict[str, Any]], other: str, query: str) -> Row:
    """A search that finds these by name, against another query that finds as many."""
    bench.tell(f"search by name against by {other}, {len(found)} rows")
    urls = {"name": f"{studies}?PatientName={_name(found[0])[0]}*", other: f"{studies}?{query}"}
    for what, url in urls.items():
        answered = bench.searched(url, 1)[1]
        if len(answered) != len(found) or len(set(answered)) != len(found):
            raise BenchError(f"a search by {what} finds {len(answered)} rows, {len(found)} expected")
    times = bench.plan.searches_opposed
    seconds = interleave(
        {what: partial(bench.search_time, url, times) for what, url in urls.items()}, bench.plan.rounds
    )
    return compare(
        f"QIDO, {len(found)} of {bench.plan.rows:,} rows, found by name, against by {other}",
        seconds["name"],
        seconds[other],
        most=None,
        unit=times,
    )


def _of_one_initial(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Those whose names begin with the most frequent letter that no more than `most` begin with."""
    frequent = Counter(_name(row)[0] for row in rows).most_common()
    initial = next(letter for letter, count in frequent if count <= most)
    return [row for row in rows if _name(row)[0] == initial]


def _span(rows: list[dict[str, Any]], count: int) -> str:
    """Dates between which so many studies were made."""
    dates = sorted(_text(row, "00080020") for row in rows)
    for first, last in zip(dates, dates[count - 1 :], strict=False):
        if sum(first <= date <= last for date in dates) == count:
            return f"{first}-{last}"
    raise BenchError(f"there are no dates between which {count} studies were made")


def _name(row: dict[str, Any]) -> str:
    name: str = row["00100010"]["Value"][0]["Alphabetic"]
    return name


def _text(row: dict[str, Any], tag: str) -> str:
    text: str = row[tag]["Value"][0]
    return text
