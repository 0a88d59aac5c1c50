"""Paint ellipses with soft edges on a picture measured in millimetres."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]


class Canvas:
    """A square-pixelled picture. x grows to the right and y downwards, both in mm from the centre.

    Only the rectangle around an ellipse is touched, so small ones cost next to nothing.
    """

    def __init__(self, rows: int, columns: int, spacing_mm: float, background: float = 0.0) -> None:
        self.spacing = spacing_mm
        self.x = ((np.arange(columns) - (columns - 1) / 2) * spacing_mm).astype(np.float32)
        self.y = ((np.arange(rows) - (rows - 1) / 2) * spacing_mm).astype(np.float32)
        self.image: Plane = np.full((rows, columns), background, np.float32)

    def ellipse(
        self,
        x: float,
        y: float,
        half_width: float,
        half_height: float,
        value: float | Plane,
        *,
        angle: float = 0.0,
        within: Plane | None = None,
        opacity: float = 1.0,
    ) -> None:
        """Paint an ellipse, turned by `angle` (radians). `within` (0–1, as the picture) and `opacity` thin it.

        `value` may be a picture too, to paint a texture.
        """
        if min(half_width, half_height) < self.spacing / 2:
            return
        reach = max(half_width, half_height) if angle else 0.0
        across = self._span(len(self.x), x, reach or half_width)
        down = self._span(len(self.y), y, reach or half_height)
        dx, dy = self.x[across] - np.float32(x), self.y[down] - np.float32(y)
        if not (dx.size and dy.size):
            return
        if angle:
            cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
            along = np.add.outer(dy * sin, dx * cos) / np.float32(half_width)
            athwart = np.add.outer(dy * cos, -dx * sin) / np.float32(half_height)
            square = along * along + athwart * athwart
        else:
            square = np.add.outer((dy / np.float32(half_height)) ** 2, (dx / np.float32(half_width)) ** 2)
        # Near the edge (1 - r²) / 2 is 1 - r, so this is the distance to it in pixels.
        steep = np.float32(min(half_width, half_height) / (2 * self.spacing))
        weight = np.minimum((1 - square) * steep + np.float32(0.5), np.float32(opacity))
        np.maximum(weight, np.float32(0), out=weight)
        if within is not None:
            weight *= within[down, across]
        patch = self.image[down, across]
        target = value[down, across] if isinstance(value, np.ndarray) else np.float32(value)
        patch += weight * (target - patch)

    def ball(
        self,
        centre: tuple[float, float, float],
        radii: tuple[float, float, float],
        value: float | Plane,
        z: float,
        *,
        within: Plane | None = None,
    ) -> None:
        """Paint the section at height `z` of an ellipsoid."""
        inside = 1 - ((z - centre[2]) / radii[2]) ** 2
        if inside > 0:
            shrink = math.sqrt(inside)
            self.ellipse(centre[0], centre[1], radii[0] * shrink, radii[1] * shrink, value, within=within)

    def _span(self, size: int, centre: float, reach: float) -> slice:
        middle = centre / self.spacing + (size - 1) / 2
        half = reach / self.spacing + 1
        return slice(max(0, math.ceil(middle - half)), max(0, min(size, math.floor(middle + half) + 1)))


def smooth_noise(shape: tuple[int, int], cell: int, dice: np.random.Generator) -> Plane:
    """Noise of unit deviation whose grains are about `cell` pixels wide."""
    rows, columns = shape[0] // cell + 2, shape[1] // cell + 2
    coarse = dice.standard_normal((rows, columns), np.float32)
    down = np.linspace(0, rows - 1.001, shape[0], dtype=np.float32)
    across = np.linspace(0, columns - 1.001, shape[1], dtype=np.float32)
    i, j = down.astype(int), across.astype(int)
    u, v = (down - i)[:, None], (across - j)[None, :]
    upper = coarse[i][:, j] * (1 - v) + coarse[i][:, j + 1] * v
    lower = coarse[i + 1][:, j] * (1 - v) + coarse[i + 1][:, j + 1] * v
    mixed = upper * (1 - u) + lower * u
    result: Plane = (mixed / mixed.std()).astype(np.float32)
    return result
