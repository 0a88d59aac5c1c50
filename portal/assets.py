"""Static files from one folder: an index made by walking it, so no request path ever touches the disk."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

CHUNK_BYTES = 256 * 1024

#: Own table: the machine's /etc/mime.types decides nothing here, and a browser refuses a module script or a
#: streamed WebAssembly module of another type.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".gz": "application/gzip",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".jsonc": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webapp": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
COMPRESSIBLE = frozenset((".css", ".html", ".js", ".json", ".jsonc", ".map", ".mjs", ".svg", ".wasm", ".xml"))
COMPRESS_FROM_BYTES = 4096

#: `app.bundle.0f6159c501addfe9.js`, `0ddf166f7a343eda.wasm`: the name changes with the content.
_HASHED_NAME = re.compile(r"(?:^|\.)[0-9a-f]{16,}\.[a-z0-9]+$")
FOR_EVER = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: where it is, how large, and the path of its gzip form if `precompress` made one."""

    path: Path
    size: int
    media_type: str
    cache_control: str
    compressed: Path | None = None
    compressed_size: int = 0


class AssetTree:
    """The files below one folder, by URL path without a leading slash. Symbolic links are left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.assets: Mapping[str, Asset] = _index(folder)
        self._tags: dict[Path, str] = {}

    async def respond(self, request: Request, asset: Asset, headers: Mapping[str, str]) -> Response:
        """Answer a GET or HEAD: 304 if the client has it, gzip if made and accepted."""
        zipped = asset.compressed is not None and accepts_gzip(request)
        path = asset.compressed if zipped and asset.compressed is not None else asset.path
        size = asset.compressed_size if zipped else asset.size
        tag = await self._tag(path)
        answer = {**headers, "etag": tag, "cache-control": asset.cache_control}
        if asset.compressed is not None:
            answer["vary"] = "Accept-Encoding"
        if not_modified(request, tag):
            return Response(status_code=304, headers=answer)
        answer |= {"content-type": asset.media_type, "content-length": str(size)}
        if zipped:
            answer["content-encoding"] = "gzip"
        if request.method == "HEAD":
            return Response(headers=answer)
        return StreamingResponse(_read(path, size), headers=answer)

    async def _tag(self, path: Path) -> str:
        """An ETag from the content. Times tell nothing: npm dates every file of every release 1985-10-26, so
        that two releases' files of one name and size would look the same, by Last-Modified too."""
        if path not in self._tags:
            self._tags[path] = await asyncio.to_thread(_content_tag, path)
        return self._tags[path]


def content_tag(content: bytes) -> str:
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def accepts_gzip(request: Request) -> bool:
    for item in request.headers.get("accept-encoding", "").split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return re.fullmatch(r"\s*q=0(\.0*)?\s*", parameters) is None
    return False


def not_modified(request: Request, tag: str) -> bool:
    """If-None-Match, compared weakly (RFC 9110 §13.1.2)."""
    held = request.headers.get("if-none-match", "")
    return held.strip() == "*" or tag in {item.strip().removeprefix("W/") for item in held.split(",")}


def precompress(folder: Path) -> int:
    """Write `NAME.gz` beside each file that compression makes smaller; return how many were written.

    Meant for installation time (`python -m portal.assets FOLDER`): what OHIF loads first is 17 MB, compressed 3 MB.
    """
    written = 0
    for asset in _index(folder).values():
        target = asset.path.with_name(asset.path.name + ".gz")
        if asset.path.suffix not in COMPRESSIBLE or asset.size < COMPRESS_FROM_BYTES or target.exists():
            continue
        content = gzip.compress(asset.path.read_bytes(), compresslevel=6, mtime=0)
        if len(content) < asset.size:
            partial = target.with_name(target.name + ".part")
            partial.write_bytes(content)
            partial.replace(target)
            written += 1
    return written


def _index(folder: Path) -> dict[str, Asset]:
    sizes: dict[Path, int] = {}
    for parent, directories, names in os.walk(folder, followlinks=False):
        directories[:] = [d for d in directories if not d.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                sizes[path] = path.stat().st_size
    assets = {}
    for path, size in sizes.items():
        if path.suffix in (".gz", ".part"):
            continue
        compressed = path.with_name(path.name + ".gz")
        compressed_size = sizes.get(compressed, 0)
        assets[path.relative_to(folder).as_posix()] = Asset(
            path=path,
            size=size,
            media_type=media_type(path.name),
            cache_control=FOR_EVER if _HASHED_NAME.search(path.name) else REVALIDATE,
            compressed=compressed if compressed_size else None,
            compressed_size=compressed_size,
        )
    return assets


def media_type(name: str) -> str:
    return MEDIA_TYPES.get(Path(name).suffix.lower(), "application/octet-stream")


def _content_tag(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return f'"{digest.hexdigest()}"'


async def _read(path: Path, size: int) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while size > 0 and (chunk := await asyncio.to_thread(file.read, min(CHUNK_BYTES, size))):
            size -= len(chunk)
            yield chunk
    finally:
        file.close()


if __name__ == "__main__":
    import sys

    precompress(Path(sys.argv[1]))
