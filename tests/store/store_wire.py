"""Requests that store instances, written here byte by byte."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pydicom
import requests
from pydicom.dataset import Dataset

BOUNDARY = "a1b2c3"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def body(parts: Iterable[bytes], content_type: str = "application/dicom") -> bytes:
    whole = b"".join(
        f"--{BOUNDARY}\r\nContent-Type: {content_type}\r\n\r\n".encode() + part + b"\r\n" for part in parts
    )
    return whole + f"--{BOUNDARY}--\r\n".encode()


def post(url: str, data: bytes | Iterator[bytes], headers: dict[str, str], **more: str) -> requests.Response:
    return requests.post(
        url, data=data, headers={"Content-Type": RELATED, **headers, **more}, timeout=30, allow_redirects=False
    )


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def written(dataset: Dataset, **meta: Any) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True, **meta)
    return stream.getvalue()


def reference(answer: dict[str, Any], tag: str, key: str) -> dict[str, Any]:
    """SOPInstanceUID → a value of its item, of the sequence `tag`."""
    items = answer.get(tag, {}).get("Value", [])
    return {item["00081155"]["Value"][0]: item.get(key, {}).get("Value", [None])[0] for item in items}


def stored(answer: dict[str, Any]) -> dict[str, str]:
    """SOPInstanceUID → RetrieveURL."""
    return reference(answer, "00081199", "00081190")


def failed(answer: dict[str, Any]) -> dict[str, int]:
    """SOPInstanceUID → failure reason."""
    return reference(answer, "00081198", "00081197")
