"""Structured logs, one JSON object a line on standard error. No patient data: routes, never paths or queries."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

#: What a record may carry besides its message.
FIELDS = ("request_id", "method", "route", "status", "ms", "emetteur", "why", "scope", "sources", "failed")
#: uvicorn's words for what `dicomweb.respond` does on purpose: leaving a broken body without its end.
_ABORTED = "ASGI callable returned without completing response."


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            # The text of an exception may quote data: its type and place are enough to find the fault.
            entry["exception"] = record.exc_info[0].__name__
            entry["frames"] = _frames(record.exc_info[2])
        return orjson.dumps(entry, default=str).decode()


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
