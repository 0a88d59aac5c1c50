"""A slow client of a large study holds neither the server's memory nor, through it, the member's pace."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import retrieve_wire as wire
from imagora_demo import exams
from retrieve_member import DICOM, Framing, Held, Holder, answer_head, content_type
from retrieve_process import ServeProcess
from support.peer import Connection, Request

MB = 1 << 20
INSTANCE_MB = 4
INSTANCES = 125  # 500 MB
PACE = MB  # a second
READ_S = 4.0  # a server that reads ahead would hold hundreds of megabytes long before
GROWTH_MB = 32
MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
UID = exams.uid("large", "study")
TEMPLATE = exams.study(seed="large", rows=2048, columns=INSTANCE_MB * 256, bits=16)[0]


class LargeStudy:
    """A delivery of 500 MB, made as it goes from one picture. `sent` counts its bytes."""

    def __init__(self) -> None:
        self.sent = 0
        pixels = TEMPLATE.index(b"\xe0\x7f\x10\x00OW")
        self._head, self._pixels = TEMPLATE[:pixels], memoryview(TEMPLATE)[pixels:]

    async def __call__(self, _: Request, connection: Connection, held: list[Held]) -> None:
        self.sent = 0
        await connection.send(answer_head(Framing.CLOSE, 0, content_type("large")))
        sop = held[0].sop.encode()
        for number in range(INSTANCES):
            own = sop[:-4] + f"{number + 1000}".encode()
            await self._send(connection, f"--large\r\nContent-Type: {DICOM}\r\n\r\n".encode())
            await self._send(connection, self._head.replace(sop, own))
            for at in range(0, len(self._pixels), 1 << 18):
                await self._send(connection, self._pixels[at : at + (1 << 18)])
            await self._send(connection, b"\r\n")
        await self._send(connection, b"--large--\r\n")
        connection.writer.close()

    async def _send(self, connection: Connection, data: bytes | memoryview) -> None:
        self.sent += len(data)
        await connection.send(data)  # type: ignore[arg-type]


@pytest.mark.slow
def test_slow_reader_of_a_large_study_holds_memory_flat(tmp_path: Path) -> None:
    study = LargeStudy()
    with Holder([TEMPLATE], deliver=study) as holder, ServeProcess(tmp_path, {"csrom41200": holder.url}) as server:
        # Warm: everything that is loaded or pooled once is there, from one whole transfer at full speed.
        warm = wire.connect(server.dicomweb, f"/studies/{UID}", MULTIPART)
        with warm as link:
            link.settimeout(60)
            read = _read(link, 50 * MB, pace=None)
        assert read >= 50 * MB
        time.sleep(0.5)
        before = server.rss_mb

        most = before
        holder.peer.closed_at.clear()
        with wire.connect(server.dicomweb, f"/studies/{UID}", MULTIPART) as link:
            started = time.monotonic()
            read = 0
            while time.monotonic() - started < READ_S:
                read += _read(link, PACE // 4, pace=PACE)
                most = max(most, server.rss_mb)
        left = time.monotonic()
        assert READ_S * 0.8 <= read / PACE <= READ_S * 1.2
        assert most - before <= GROWTH_MB, f"{before:.0f} MB grew to {most:.0f} MB"
        # Back-pressure reaches the member: what it has sent is what was read and the kernel's buffers.
        assert study.sent - read < 48 * MB, f"{study.sent} sent for {read} read"
        while not holder.peer.closed_at:
            assert time.monotonic() - left < 5
            time.sleep(0.01)
        assert holder.peer.closed_at[0] - left < 1.0

        # The same, whole, as fast as it goes.
        with wire.connect(server.dicomweb, f"/studies/{UID}", MULTIPART) as link:
            read, tail = 0, b""
            while chunk := link.recv(MB):
                read += len(chunk)
                tail = (tail + chunk)[-200:]
                if read % (8 * MB) < len(chunk):
                    most = max(most, server.rss_mb)
        assert read > INSTANCES * INSTANCE_MB * MB
        assert tail.endswith(b"--\r\n\r\n0\r\n\r\n")
        assert most - before <= GROWTH_MB, f"{before:.0f} MB grew to {most:.0f} MB"


def _read(link: object, size: int, *, pace: int | None) -> int:
    """Read `size` bytes or a little more, at `pace` bytes a second."""
    read = 0
    started = time.monotonic()
    while read < size:
        read += len(link.recv(1 << 16))  # type: ignore[attr-defined]
        if pace is not None:
            time.sleep(max(0.0, read / pace - (time.monotonic() - started)))
    return read
