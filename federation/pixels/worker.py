"""The main loop of one process of the pool: `python -m federation.pixels.worker`, started by `pool` only.

Standard input is a socket of packets. In: a job as JSON, with two descriptors, one to read from and one to write to.
Out: JSON, where the table of what was written stands, or an error. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import os
import resource
import socket
import sys
from importlib import import_module
from typing import Any

import orjson

from federation.errors import BadRequest
from federation.pixels.confine import confine
from federation.pixels.errors import PixelError
from federation.pixels.limits import PACKET_MAX, Limits


def main() -> None:
    settings = orjson.loads(sys.argv[1])
    limits = Limits(**settings["limits"])
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])  # uvloop hands on what is not marked close-on-exec
    with socket.socket(fileno=os.dup(0)) as channel:
        confined = confine(
            parent=settings["parent"],
            memory_bytes=settings["memory_bytes"],
            file_bytes=max(limits.output_bytes, limits.input_bytes) + (64 << 20),
            niceness=settings["niceness"],
        )
        # Only now what takes long to load, and what loads foreign code. pydicom would load a third as much again to
        # fetch its test files from the network: without this module it does not try.
        sys.modules["requests"] = None  # type: ignore[assignment]
        jobs = import_module(settings["jobs"])
        jobs.prepare(limits)
        channel.send(orjson.dumps({"ready": confined}))
        while True:
            packet, descriptors, _flags, _address = socket.recv_fds(channel, PACKET_MAX, 2)
            if not packet:
                return
            channel.send(orjson.dumps(answer(jobs, orjson.loads(packet), descriptors, limits)))


def answer(jobs: Any, request: dict[str, Any], descriptors: list[int], limits: Limits) -> dict[str, Any]:
    with io.FileIO(descriptors[0]) as file, io.FileIO(descriptors[1], "w") as target:
        writer = io.BufferedWriter(target)
        try:
            out = jobs.Output(writer, limits)
            return {"table": jobs.run(jobs.JOBS[request["job"]], file, out, request["params"], limits)}
        except (PixelError, BadRequest) as error:
            return {"error": type(error).__name__, "message": error.message, "detail": getattr(error, "detail", "")}
        finally:
            writer.detach()  # what is not written yet is of no use


if __name__ == "__main__":
    main()
