"""Interleaved runs, and what they say: the median of ratios and their interquartile range."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run A, B, C, C, B, A, A … → the seconds of each, by name. One more round comes first and does not count.

    Whatever else the machine does meanwhile then falls on all of them alike, and a ratio within one round holds, also
    where what ran before leaves something behind.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in [*contenders.items()][:: -1 if number % 2 else 1]:
            took = run()
            if number:
                seconds[name].append(took)
    return seconds


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """→ (first quartile, median, third quartile)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `met` None = there is no target."""

    what: str
    value: str
    spread: str
    target: str = ""
    met: bool | None = None
    absolute: str = ""
    measured: dict[str, Any] = field(default_factory=dict)


def compare(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    most: float | None,
    unit: float = 1.0,
) -> Row:
    """`ours` and `theirs` in seconds, one of each per round. `most` = the largest ratio that will do.

    `unit` = how many requests one of these times is for.
    """
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = quartiles(ratios)
    return Row(
        what=what,
        value=f"{middle:.2f} ×",
        spread=f"{low:.2f} – {high:.2f}",
        target=f"≤ {most:g} ×" if most is not None else "",
        met=middle <= most if most is not None else None,
        absolute=f"{_time(statistics.median(ours) / unit)} / {_time(statistics.median(theirs) / unit)}",
        measured={"ratio": middle, "quartiles": [low, high], "ours_s": list(ours), "theirs_s": list(theirs)},
    )


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| What | Median | Interquartile | Target | Met | Imagora / other |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        met = {True: "yes", False: "no", None: ""}[row.met]
        lines.append(f"| {row.what} | {row.value} | {row.spread} | {row.target} | {met} | {row.absolute} |")
    return "\n".join(lines)
