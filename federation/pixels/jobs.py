"""The jobs that a process of the pool can do, by name: foreign exceptions become `PixelError` here and nowhere else."""

from __future__ import annotations

import errno
import logging
import traceback
import warnings
from collections.abc import Callable
from typing import IO, Any

import orjson
from PIL import Image

from federation.errors import BadRequest
from federation.pixels.errors import PixelError, SickFile, TooLarge
from federation.pixels.limits import Limits
from federation.pixels.metadata import metadata
from federation.pixels.options import RenderOptions
from federation.pixels.render import render, thumbnail
from federation.pixels.transcode import frames, to_explicit

Params = dict[str, Any]


class Output:
    """The file that a job writes to, and what stands where in it."""

    def __init__(self, file: IO[bytes], limits: Limits) -> None:
        self.file = file
        self.parts: list[Params] = []
        self._limits = limits
        self._size = 0

    def add(self, data: bytes, **about: Any) -> None:
        if self._size + len(data) > self._limits.output_bytes:
            raise TooLarge("the answer would be too large: ask for fewer frames")
        self.file.write(data)
        self.parts.append({"offset": self._size, "length": len(data), **about})
        self._size += len(data)

    def finish(self) -> list[int]:
        """Writes the table of parts behind them → its offset and length."""
        table = orjson.dumps(self.parts, default=str)
        start = self.file.tell()
        self.file.write(table)
        self.file.flush()
        return [start, len(table)]


Job = Callable[[IO[bytes], Output, Params, Limits], None]


def _render(file: IO[bytes], out: Output, params: Params, limits: Limits) -> None:
    for picture in render(file, RenderOptions.from_json(params["options"]), limits):
        out.add(picture.data, media_type=picture.media_type, frame=picture.frame, about={"size": picture.size})


def _thumbnail(file: IO[bytes], out: Output, params: Params, limits: Limits) -> None:
    picture = thumbnail(file, RenderOptions.from_json(params["options"]), limits)
    out.add(picture.data, media_type=picture.media_type, frame=picture.frame, about={"size": picture.size})


def _frames(file: IO[bytes], out: Output, params: Params, limits: Limits) -> None:
    for frame in frames(file, params["frames"], limits, as_stored=params["as_stored"]):
        out.add(
            frame.data,
            media_type=frame.media_type,
            transfer_syntax=frame.transfer_syntax,
            frame=frame.number,
            about=frame.described,
        )


def _to_explicit(file: IO[bytes], out: Output, params: Params, limits: Limits) -> None:
    described = to_explicit(file, out.file, limits)
    out.parts.append(
        {
            "offset": 0,
            "length": out.file.tell(),
            "media_type": "application/dicom",
            "transfer_syntax": "1.2.840.10008.1.2.1",
            "about": described,
        }
    )


def _metadata(file: IO[bytes], out: Output, params: Params, limits: Limits) -> None:
    bulk: list[str] = []

    def note(place: str) -> str:
        bulk.append(place)
        return place

    model = metadata(file, limits, bulk_over=params["bulk_over"], uri_of=note if params["uris"] else None)
    out.add(orjson.dumps(model, option=orjson.OPT_NON_STR_KEYS), media_type="application/dicom+json", about=bulk)


JOBS: dict[str, Job] = {
    "render": _render,
    "thumbnail": _thumbnail,
    "frames": _frames,
    "to_explicit": _to_explicit,
    "metadata": _metadata,
}


def prepare(limits: Limits) -> None:
    """Once in each process."""
    Image.MAX_IMAGE_PIXELS = limits.frame_pixels
    Image.init()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)  # what libraries say of a file may hold its data


def run(job: Job, file: IO[bytes], out: Output, params: Params, limits: Limits) -> list[int]:
    """→ where the table of `out` stands. Raises PixelError or BadRequest, and nothing else."""
    try:
        job(file, out, params, limits)
        return out.finish()
    except (PixelError, BadRequest):
        raise
    except MemoryError as error:
        raise _with_place(TooLarge("the instance needs more memory than a job may take"), error) from None
    except OSError as error:
        if error.errno in (errno.EFBIG, errno.ENOSPC):
            raise _with_place(TooLarge("the answer does not fit into its file"), error) from None
        raise _with_place(SickFile("the instance can't be read"), error) from None
    except BaseException as error:  # pydicom, Pillow, numpy and codecs raise all kinds on damaged bytes; Rust panics
        raise _with_place(SickFile("the instance is damaged, or encoded in a way that can't be read"), error) from None


def _with_place(error: PixelError, cause: BaseException) -> PixelError:
    """For our log: kind and place in code. The text of foreign exceptions may hold the file's data."""
    steps = traceback.extract_tb(cause.__traceback__)[-4:]
    error.detail = f"{type(cause).__name__} at " + " < ".join(
        f"{step.filename.rsplit('/', 1)[-1]}:{step.lineno}" for step in reversed(steps)
    )
    return error
