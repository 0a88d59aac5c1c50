"""A member that holds studies made as they are sent, one of them huge, and that tells what it was asked.

Arguments: port, and how many instances of 512 KB the huge and the middle study have. Knows searches for studies, the
retrieve of each, and `/asked`: the target and header fields of the last search.
"""

from __future__ import annotations

import json
import socket
import socketserver
import sys
from http import HTTPStatus
from urllib.parse import urlsplit

import orjson
from imagora_demo import exams
from pydicom.dataset import Dataset

STUDY_UID = str(exams.uid("bench", "huge"))
MIDDLE_STUDY_UID = str(exams.uid("bench", "middle"))
SMALL_STUDY_UID = str(exams.uid("bench", "small"))
INSTANCE_BYTES = 512 * 512 * 2
_SOP = f"{exams.ROOT}.9.10000000"
_BOUNDARY = b"bench-member"


def _template(study_uid: str) -> tuple[bytes, bytes]:
    """→ (head, pixels) of an instance whose SOPInstanceUID is `_SOP`."""

    def name(dataset: Dataset, _series: int, _instance: int) -> None:
        dataset.SOPInstanceUID = _SOP

    (instance,) = exams.study(study_uid=study_uid, rows=512, columns=512, finish=name)
    return instance[:-INSTANCE_BYTES], instance[-INSTANCE_BYTES:]


class Member(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, instances: int, middle: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.studies = {STUDY_UID: instances, MIDDLE_STUDY_UID: middle, SMALL_STUDY_UID: 2}
        self.templates = {uid: _template(uid) for uid in self.studies}
        self.asked: dict[str, object] = {}


class Handler(socketserver.StreamRequestHandler):
    server: Member

    def handle(self) -> None:
        while request := self.rfile.readline():
            fields = {}
            while (line := self.rfile.readline().strip()) != b"":
                name, _, value = line.decode("latin-1").partition(":")
                fields[name.strip().lower()] = value.strip()
            target = request.decode("latin-1").split(" ")[1]
            parts = urlsplit(target)
            if parts.path == "/asked":
                self._json(self.server.asked)
            elif parts.path.endswith("/studies"):
                self.server.asked = {"target": target, "headers": fields}
                self._json([row(uid) for uid in self.server.studies if uid in parts.query])
            else:
                self._study(parts.path.rpartition("/")[2])
                return

    def _json(self, value: object) -> None:
        body = orjson.dumps(value)
        self.wfile.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def _study(self, uid: str) -> None:
        if uid not in self.server.studies:
            self.wfile.write(f"HTTP/1.1 {HTTPStatus.NOT_FOUND} No\r\nContent-Length: 0\r\n\r\n".encode())
            return
        head, pixels = self.server.templates[uid]
        connection: socket.socket = self.connection
        try:
            connection.sendall(
                b'HTTP/1.1 200 OK\r\nContent-Type: multipart/related; type="application/dicom"; boundary='
                + _BOUNDARY
                + b"\r\nConnection: close\r\n\r\n"
            )
            for number in range(self.server.studies[uid]):
                sop = f"{exams.ROOT}.9.{10_000_000 + number}".encode()
                start = b"--" + _BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"
                connection.sendall(start + head.replace(_SOP.encode(), sop))
                connection.sendall(pixels)
                connection.sendall(b"\r\n")
            connection.sendall(b"--" + _BOUNDARY + b"--\r\n")
        except ConnectionError:
            return


def row(uid: str) -> dict[str, object]:
    return {
        "0020000D": {"vr": "UI", "Value": [uid]},
        "00080020": {"vr": "DA", "Value": ["20240110"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DUPONT-LÉVY^Marie"}]},
        "00100020": {"vr": "LO", "Value": ["4547"]},
        "00100030": {"vr": "DA", "Value": ["19600512"]},
        "00100040": {"vr": "CS", "Value": ["F"]},
    }


def main() -> None:
    with Member(*map(int, sys.argv[1:])) as member:
        member.serve_forever()


if __name__ == "__main__":
    print(json.dumps({"study": STUDY_UID}), flush=True)
    main()
