"""Structured logs, one JSON object a line on standard error. No patient data: routes, never paths or queries.

Several processes may write to one standard error: each line is one write, and short enough not to be torn.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

#: What a record may carry besides its message.
FIELDS = ("request_id", "method", "route", "status", "ms", "emetteur", "why", "scope", "sources", "failed")
#: A pipe takes so much in one piece from several writers (POSIX, PIPE_BUF), the line's end included.
LINE_MAX = 4095
#: Characters that are left at each end of a message that is too long.
_ENDS = 700
#: uvicorn's words for what `dicomweb.respond` does on purpose: leaving a broken body without its end.
_ABORTED = "ASGI callable returned without completing response."


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
            "message": _message(record),
        }
        entry |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            # The text of an exception may quote data: its type and place are enough to find the fault.
            entry["exception"] = record.exc_info[0].__name__
            entry["frames"] = _frames(record.exc_info[2])
        line = orjson.dumps(entry, default=str)
        return (line if len(line) <= LINE_MAX else _shortened(entry)).decode()


def _shortened(entry: dict[str, Any]) -> bytes:
    """Without the middle of a long message and the outer frames: what is wrong stands at the ends."""
    message, frames = entry["message"], entry.get("frames", [])
    if len(message) > 2 * _ENDS:
        entry["message"] = f"{message[:_ENDS]} … {message[-_ENDS:]}"
    while len(line := orjson.dumps(entry, default=str)) > LINE_MAX and frames:
        frames = entry["frames"] = frames[1:]
    return line


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    # Behind the first line asyncio describes what it speaks of: an exception with its text, a response with its URL.
    return text.partition("\n")[0] if record.name == "asyncio" else text


def _frames(traceback: Any) -> list[str]:
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames


def set_up_logs(level: str) -> None:
    """Everything, uvicorn's own lines included, in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(lambda record: record.getMessage() != _ABORTED)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = name != "uvicorn.access"
    logging.getLogger("asyncio").setLevel(logging.WARNING)
