"""Which part of the image is shown, and how large (PS3.18 §8.3.5.1.3). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from federation.errors import BadRequest
from federation.pixels.options import VIEWPORT_MAX, Viewport


@dataclass(frozen=True, slots=True)
class Layout:
    """`box`: left, top, right, bottom in source pixels. `size`: width, height of the picture in pixels."""

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    flip_horizontally: bool = False
    flip_vertically: bool = False


def lay_out(columns: int, rows: int, viewport: Viewport | None, *, aspect: float = 1.0) -> Layout:
    """`aspect`: height of a source pixel over its width. Without a viewport one source pixel is one pixel shown,
    but where they are not square: then the shorter side of them is stretched."""
    stretch_x, stretch_y = (1.0, aspect) if aspect >= 1 else (1 / aspect, 1.0)
    if viewport is None:
        size = (max(1, round(columns * stretch_x)), max(1, round(rows * stretch_y)))
        if size != (columns, rows) and max(size) > VIEWPORT_MAX:
            size = _fit(size[0], size[1], VIEWPORT_MAX, VIEWPORT_MAX)
        return Layout((0, 0, columns, rows), size)
    w = columns - viewport.x if viewport.w is None else abs(viewport.w)
    h = rows - viewport.y if viewport.h is None else abs(viewport.h)
    if w <= 0 or h <= 0 or viewport.x + w > columns or viewport.y + h > rows:
        raise BadRequest(f"viewport: the region reaches beyond the image, which has {columns} × {rows} pixels")
    return Layout(
        (viewport.x, viewport.y, viewport.x + w, viewport.y + h),
        _fit(w * stretch_x, h * stretch_y, viewport.width, viewport.height),
        flip_horizontally=viewport.w is not None and viewport.w < 0,
        flip_vertically=viewport.h is not None and viewport.h < 0,
    )


def _fit(width: float, height: float, most_width: int, most_height: int) -> tuple[int, int]:
    """As large as fits, the aspect kept."""
    scale = min(most_width / width, most_height / height)
    return (
        min(most_width, max(1, round(width * scale))),
        min(most_height, max(1, round(height * scale))),
    )
