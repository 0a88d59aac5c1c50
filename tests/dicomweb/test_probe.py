"""Reading a member's page row by row, and saying why there is none."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.probe import ProbedMember, RowSplitter, reason
from federation.errors import MemberGarbage, MemberUnreachable
from federation.model import Deadline
from registry import Site

ROWS = [{"00100010": {"vr": "PN", "Value": [{"Alphabetic": 'A "quoted\\" {name}]'}]}}, {}, {"é[": {"a": [[1], {}]}}]
BODY = json.dumps(ROWS, indent=1, ensure_ascii=False).encode()


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    splitter = RowSplitter()
    found: list[bytes] = []
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        found += splitter.feed(body[start:end])
    splitter.finish()
    return found


@given(cuts=st.lists(st.integers(0, 1000), max_size=8))
def test_rows_are_found_in_any_chunking(cuts: list[int]) -> None:
    assert [json.loads(row) for row in split(BODY, cuts)] == ROWS


def test_rows_are_found_byte_by_byte_and_as_soon_as_they_are_there() -> None:
    splitter = RowSplitter()
    sizes = []
    for i in range(len(BODY)):
        sizes += [i] * len(splitter.feed(BODY[i : i + 1]))
    assert len(sizes) == 3
    assert all(BODY[i : i + 1] == b"}" for i in sizes)
    assert splitter.complete


@pytest.mark.parametrize(
    ("body", "rows"),
    [(b"", 0), (b" \n", 0), (b"[]", 0), (b" [ ] \n", 0), (b'{"a": {}}', 1), (b" [{},\n{}]", 2)],
)
def test_what_servers_send_for_few_rows(body: bytes, rows: int) -> None:
    assert len(split(body, [])) == rows


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"null",
        b"[1, 2]",
        b'["a"]',
        b"[[{}]]",
        b"[{]",
        b"[{}",
        b'[{"a": "',
        b"x[{}]",
        b'"[{}]"',
        b"]",
        b"[{}] x",
    ],
)
def test_what_is_no_array_of_data_sets_is_garbage(body: bytes) -> None:
    with pytest.raises(MemberGarbage):
        split(body, [])


# Reasons ------------------------------------------------------------------------------------------------------


async def why(url: str) -> str:
    """Why a page cannot be had from `url`."""
    member = ProbedMember(Site(emetteur="one", number=1, name="One", dicomweb=url))
    try:
        with pytest.raises(MemberUnreachable) as raised:
            await member.page("/studies", {}, limit=1, most=2, deadline=Deadline(5.0))
        return reason(raised.value)
    finally:
        await member.aclose()


async def test_a_refused_connection_is_told_without_the_address() -> None:
    assert await why("http://127.0.0.1:1/x") == "no connection (Connection refused)"


async def test_an_unknown_host_is_told() -> None:
    assert await why("http://nowhere.invalid/x") == "its host name is not known here"


@contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    """Listens with a certificate that nobody vouches for. Gives its port."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    file = folder / "server.pem"
    plain = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:  # the client leaves in the middle of it
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


async def test_a_certificate_that_is_not_trusted_is_told(tmp_path: Path) -> None:
    with tls_server(tmp_path) as port:
        assert (await why(f"https://127.0.0.1:{port}/x")).startswith("its certificate is not trusted (self")
