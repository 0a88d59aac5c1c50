"""A client that retrieves a large study at its own pace."""

from __future__ import annotations

import socket
import threading
import time

from enforced import DICOM, OUTSIDER, Exam, Region
from retrieve import retrieve_wire as wire

MB = 1 << 20
#: 64 instances of 1 MB each. What is on its way when a transfer is cut is what kernels buffer: a few MB.
LARGE = {"n_instances": 64, "rows": 512, "columns": 1024}
SIZE = 64 * MB


class Reader:
    """Retrieves a study, or what stands `below` it, reading half a megabyte each tenth of a second, or nothing at all,
    until `hurry`."""

    def __init__(self, region: Region, exam: Exam, scope: str, *, reads: bool, below: str = "") -> None:
        root = region.servers[1].dicomweb(scope)
        accept = {"Accept": "application/dicom+json"} if below else DICOM
        path = f"/studies/{exam.uid}{below}"
        self._link = wire.connect(root, path, {**accept, **region.people.bearer(OUTSIDER)})
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        self._begun = self._link.recv(1 << 14)
        assert self._begun.startswith(b"HTTP/1.1 200")
        self._pieces = [self._begun]
        self._reads = reads
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def read(self) -> int:
        """Bytes, until now."""
        return sum(map(len, self._pieces))

    @property
    def ended(self) -> bool:
        """The connection is closed, in whatever way."""
        return not self._thread.is_alive()

    @property
    def request_id(self) -> str:
        return wire.read_answer(self._begun).headers["x-request-id"]

    def _read(self) -> None:
        if not self._reads:
            self._hurry.wait()
        try:
            while piece := self._link.recv(1 << 19):
                self._pieces.append(piece)
                if not self._hurry.is_set():
                    time.sleep(0.1)
        except ConnectionResetError:
            pass

    def hurry(self) -> wire.Seen:
        """Read on as fast as it goes, to the end."""
        self._hurry.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._link.close()
        return wire.read_answer(b"".join(self._pieces))
