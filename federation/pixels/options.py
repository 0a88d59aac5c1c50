"""What a rendered picture shall look like (PS3.18 §8.3.5), and the notation of these parameters. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from federation.errors import BadRequest

#: Longest side of a thumbnail, pixels.
THUMBNAIL_SIDE = 128
#: Longest side of a picture that is asked for, pixels.
VIEWPORT_MAX = 8192
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_ANNOTATIONS = frozenset({"patient", "technique"})


class VoiFunction(StrEnum):
    """PS3.18 §8.3.5.1.4; the formulas stand in PS3.3 §C.11.2.1.2 and §C.11.2.1.3."""

    LINEAR = "linear"
    LINEAR_EXACT = "linear-exact"
    SIGMOID = "sigmoid"


class MediaType(StrEnum):
    JPEG = "image/jpeg"
    PNG = "image/png"
    GIF = "image/gif"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Centre and width in units of the Modality LUT's output."""

    center: float
    width: float
    function: VoiFunction = VoiFunction.LINEAR

    def __post_init__(self) -> None:
        # PS3.3 §C.11.2.1.2: Window Width ≥ 1 for LINEAR, > 0 for the others
        least = 1 if self.function is VoiFunction.LINEAR else 0
        if not (math.isfinite(self.center) and math.isfinite(self.width)):
            raise BadRequest("window: centre and width must be finite numbers")
        if self.width < least or self.width == 0:
            raise BadRequest("window: width must be at least 1 (linear) or more than 0 (linear-exact, sigmoid)")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`center,width,function`. BadRequest if it is anything else."""
        match text.split(","):
            case [center, width, function] if function in set(VoiFunction):
                return cls(
                    center=_number(center, "window"),
                    width=_number(width, "window"),
                    function=VoiFunction(function),
                )
        raise BadRequest("window must be center,width,function with function linear, linear-exact or sigmoid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewport:
    """PS3.18 §8.3.5.1.3: the picture fits into width × height pixels, its aspect kept.

    It shows the region of the source image that starts at (x, y) and is w × h source pixels large; None: up to the
    image's edge. A negative w flips it horizontally, a negative h vertically.
    """

    width: int
    height: int
    x: float = 0
    y: float = 0
    w: float | None = None
    h: float | None = None

    def __post_init__(self) -> None:
        if not (0 < self.width <= VIEWPORT_MAX and 0 < self.height <= VIEWPORT_MAX):
            raise BadRequest(f"viewport: width and height must be from 1 to {VIEWPORT_MAX}")
        if self.w == 0 or self.h == 0 or self.x < 0 or self.y < 0:
            raise BadRequest("viewport: the region of the image must not be empty nor start outside of it")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`vw,vh` or `vw,vh,sx,sy,sw,sh`, of which the last four may be empty. BadRequest if it is anything else."""
        fields = text.split(",")
        if len(fields) not in (2, 6) or not all(re.fullmatch(r"[0-9]{1,6}", field) for field in fields[:2]):
            raise BadRequest("viewport must be vw,vh or vw,vh,sx,sy,sw,sh")
        x, y, w, h = [_number(field, "viewport") if field else None for field in fields[2:] or [""] * 4]
        return cls(width=int(fields[0]), height=int(fields[1]), x=x or 0, y=y or 0, w=w, h=h)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderOptions:
    """`frames` from 1, in the order wanted; None: all. `annotation`: of "patient", "technique".

    GIF of several frames becomes one animated picture; JPEG and PNG one picture per frame.
    """

    media_type: MediaType = MediaType.JPEG
    frames: tuple[int, ...] | None = None
    window: Window | None = None
    viewport: Viewport | None = None
    quality: int = 90
    annotation: frozenset[str] = frozenset()
    icc_profile: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise BadRequest("quality must be from 1 to 100")
        if not self.annotation <= _ANNOTATIONS:
            raise BadRequest("annotation must be patient, technique or both")
        if self.frames is not None and (not self.frames or min(self.frames) < 1):
            raise BadRequest("frames are numbered from 1")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "annotation": sorted(self.annotation)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        window, viewport = value["window"], value["viewport"]
        return cls(
            media_type=MediaType(value["media_type"]),
            frames=tuple(value["frames"]) if value["frames"] is not None else None,
            window=Window(**{**window, "function": VoiFunction(window["function"])}) if window else None,
            viewport=Viewport(**viewport) if viewport else None,
            quality=value["quality"],
            annotation=frozenset(value["annotation"]),
            icc_profile=value["icc_profile"],
        )


#: A thumbnail of which nothing else is wished.
SMALL = RenderOptions(viewport=Viewport(width=THUMBNAIL_SIDE, height=THUMBNAIL_SIDE), quality=80)


def parse_options(
    *,
    media_type: str = MediaType.JPEG,
    frames: Iterable[int] | None = None,
    window: str | None = None,
    viewport: str | None = None,
    quality: str | None = None,
    annotation: str | None = None,
    iccprofile: str | None = None,
) -> RenderOptions:
    """The parameters as they are written in a request (PS3.18 §8.3.5). BadRequest names the one that is wrong."""
    if media_type not in set(MediaType):
        raise BadRequest("pictures are made as image/jpeg, image/png or image/gif")
    if quality is not None and not re.fullmatch(r"[0-9]{1,3}", quality):
        raise BadRequest("quality must be from 1 to 100")
    if iccprofile not in (None, "no", "yes"):
        raise BadRequest("iccprofile must be no or yes")
    return RenderOptions(
        media_type=MediaType(media_type),
        frames=tuple(frames) if frames is not None else None,
        window=Window.parse(window) if window is not None else None,
        viewport=Viewport.parse(viewport) if viewport is not None else None,
        quality=int(quality) if quality is not None else 90,
        annotation=frozenset(annotation.split(",")) if annotation is not None else frozenset(),
        icc_profile=iccprofile == "yes",
    )


def _number(text: str, parameter: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise BadRequest(f"{parameter}: not a number")
    return float(text)
