"""Lines of the log: who wrote them, and how long they may get."""

from __future__ import annotations

import json
import logging
import os
import sys

from imagora.logs import LINE_MAX, JsonFormatter


def line(message: str, **more: object) -> str:
    exc_info = more.pop("exc_info", None)
    record = logging.LogRecord("imagora.test", logging.ERROR, __file__, 1, message, (), exc_info)  # type: ignore[arg-type]
    record.__dict__.update(more)
    return JsonFormatter().format(record)


def test_line_names_its_process() -> None:
    assert json.loads(line("hello", route="/x"))["pid"] == os.getpid()


def test_long_line_is_cut_so_that_a_pipe_takes_it_in_one_piece() -> None:
    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        raise ValueError("patient 4547")

    try:
        deep(200)
    except ValueError:
        text = line("the begin " + "é" * 5000 + " the end", exc_info=sys.exc_info())
    assert len(text.encode()) <= LINE_MAX
    entry = json.loads(text)
    assert entry["message"].startswith("the begin ")
    assert entry["message"].endswith(" the end")
    assert entry["exception"] == "ValueError"
    assert 5 < len(entry["frames"]) < 200
    assert entry["frames"][-1].endswith(" deep")  # where it was raised
    assert "4547" not in text


def test_line_that_fits_is_left_alone() -> None:
    assert json.loads(line("x" * 3000))["message"] == "x" * 3000
