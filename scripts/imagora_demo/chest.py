"""A chest that looks like one: a phantom in Hounsfield units, as the axial slices of an injected chest CT.

Coordinates are the patient's (PS3.3 C.7.6.2.1.1), in mm: x to the left, y to the back, z to the head.
"""

from __future__ import annotations

import functools
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from imagora_demo.canvas import Canvas, Plane, smooth_noise

SIZE = 512
PIXEL_MM = 0.74
SLICE_MM = 1.5
N_SLICES = 220
LOWEST_MM = -165.0  # z of the first slice

AIR, FAT, MUSCLE, LUNG, CORTEX, MARROW, BLOOD = -1000.0, -100.0, 50.0, -865.0, 720.0, 210.0, 210.0
RIBS = range(11)
APEX_MM = 150.0
VERTEBRA_MM = 25.0

Point = tuple[float, float, float]
Vessels = dict[int, list[tuple[float, float, float]]]


def slices(n: int = N_SLICES, slice_mm: float = SLICE_MM, seed: int = 37) -> Iterator[npt.NDArray[np.int16]]:
    """Yield axial slices from the feet up, shape (512, 512), int16 HU ≥ -1024, `PIXEL_MM` square pixels."""
    chest = _Chest(n, slice_mm, seed)
    for index in range(n):
        yield chest.slice(index)


def slice_z(index: int, slice_mm: float = SLICE_MM) -> float:
    """Height (mm) of a slice of `slices`."""
    return LOWEST_MM + index * slice_mm


@functools.cache
def projection() -> Plane:
    """The chest seen from the front, as line integrals of attenuation; shape (rows, columns), 0–1, head up.

    Pixels are square, `PIXEL_MM` wide.
    """
    slice_mm = 3.0
    # Relative to water: 1 + HU / 1000; the table, behind the body, is not in the way of an upright patient.
    rows = []
    for image in slices(n=110, slice_mm=slice_mm):
        attenuation = np.clip(image[:430].astype(np.float32) / 1000 + 1, 0, None)
        rows.append(attenuation.sum(axis=0) * (PIXEL_MM / 10))
    view = np.stack(rows[::-1])
    heights = np.linspace(0, len(view) - 1.001, int(len(view) * slice_mm / PIXEL_MM))
    below = heights.astype(int)
    part = (heights - below)[:, None].astype(np.float32)
    view = view[below] * (1 - part) + view[below + 1] * part
    result: Plane = (view / view.max()).astype(np.float32)
    return result


class _Chest:
    def __init__(self, n: int, slice_mm: float, seed: int) -> None:
        self.seed = seed
        self.dice = np.random.default_rng(seed)
        self.slice_mm = slice_mm
        canvas = Canvas(SIZE, SIZE, PIXEL_MM, AIR)
        self.x, self.y = canvas.x, canvas.y
        self.empty = self._table(canvas)
        self.domes = {side: self._dome(side) for side in (-1, 1)}
        texture = smooth_noise((SIZE, SIZE), 5, self.dice)
        # The lower part of a lying patient's lungs is denser.
        self.lung: Plane = (LUNG + 14 * texture + self.y[:, None] * np.float32(0.35)).astype(np.float32)
        self.liver: Plane = (108 + 5 * texture).astype(np.float32)
        grains = self.dice.standard_normal((SIZE + 97, SIZE + 97), np.float32)
        # Reconstructed noise is smooth at the scale of a pixel.
        self.noise: Plane = 15 * (grains + np.roll(grains, 1, 0) + np.roll(grains, 1, 1)) / math.sqrt(3)
        self.n = n
        self.vessels = self._grow_vessels()

    def slice(self, index: int) -> npt.NDArray[np.int16]:
        z = slice_z(index, self.slice_mm)
        canvas = Canvas(SIZE, SIZE, PIXEL_MM)
        canvas.image[:] = self.empty
        self._wall(canvas, z)
        self._belly(canvas, z)
        self._lungs(canvas, z, index)
        self._mediastinum(canvas, z)
        self._spine(canvas, z)
        self._ribs(canvas, z)
        down, across = (index * 37) % 97, (index * 53) % 97
        canvas.image += self.noise[down : down + SIZE, across : across + SIZE]
        return np.clip(np.rint(canvas.image), -1024, 3071).astype(np.int16)

    # -- what does not change with height ---------------------------------------------------------------

    def _table(self, canvas: Canvas) -> Plane:
        depth = self.y[:, None] - (np.float32(128) - self.x[None, :] ** 2 / np.float32(900))
        wide = np.abs(self.x[None, :]) < 178
        image = canvas.image
        image[(depth > 0) & (depth < 16) & wide] = -880
        image[(((depth > 0) & (depth < 1.5)) | ((depth > 14.5) & (depth < 16))) & wide] = -150
        return image

    def _dome(self, side: int) -> Plane:
        heights = _dome_height(self.x[None, :], self.y[:, None], side)
        return np.asarray(heights, np.float32)

    def _grow_vessels(self) -> Vessels:
        """Vessels of the lungs as discs (x, y, radius) by slice: trees that grow from each hilum."""
        discs: Vessels = defaultdict(list)
        dice = random.Random(self.seed)
        for side in (-1, 1):
            for _ in range(11):
                aim = _turned((side * 0.9, 0.0, 0.0), (0.5, 1.0, 1.1), dice)
                self._grow(discs, (side * 36.0, 8.0, 4.0), aim, 4.6, side, dice=dice)
        return discs

    def _grow(self, discs: Vessels, place: Point, aim: Point, radius: float, side: int, *, dice: random.Random) -> None:
        for _ in range(dice.randrange(9, 17)):
            aim = _turned(aim, (0.09, 0.09, 0.09), dice)
            place = (place[0] + aim[0] * 1.6, place[1] + aim[1] * 1.6, place[2] + aim[2] * 1.6)
            if not _in_lung(place, side):
                return
            middle = (place[2] - LOWEST_MM) / self.slice_mm
            reach = radius / self.slice_mm
            for index in range(max(0, math.ceil(middle - reach)), min(self.n, math.floor(middle + reach) + 1)):
                cut = radius**2 - ((index - middle) * self.slice_mm) ** 2
                discs[index].append((place[0], place[1], math.sqrt(max(cut, 0.16))))
        if radius > 0.9:
            for _ in range(2):
                self._grow(discs, place, _turned(aim, (0.42, 0.42, 0.42), dice), radius * 0.76, side, dice=dice)

    # -- slice by slice ------------------------------------------------------------------------------------

    @staticmethod
    def _wall(canvas: Canvas, z: float) -> None:
        wide, deep = _body_size(z)
        canvas.ellipse(0, 2, wide, deep, 40)  # skin
        canvas.ellipse(0, 2, wide - 2, deep - 2, FAT)
        canvas.ellipse(0, 4, wide - 15, deep - 13, MUSCLE)
        for side in (-1, 1):
            canvas.ellipse(side * 58, 90, 38, 16, MUSCLE, angle=side * -0.3)  # of the back
            if z > 20:
                canvas.ellipse(side * 66, -96 + (z - 20) * 0.12, 52, 11, MUSCLE, angle=side * 0.28)
            if z > 30:  # shoulder blade
                tall = 34 * min(1.0, (z - 30) / 40)
                canvas.ellipse(side * 112, 66, tall, 5, CORTEX, angle=side * -0.75)
                canvas.ellipse(side * 112, 66, tall - 3, 2.6, MARROW, angle=side * -0.75)

    def _belly(self, canvas: Canvas, z: float) -> None:
        if z > -55:
            return
        right = np.clip((self.domes[-1] - z) / np.float32(self.slice_mm), 0, 1)
        left = np.clip((self.domes[1] - z) / np.float32(self.slice_mm), 0, 1)
        canvas.ellipse(0, -2, 128, 88, FAT, within=np.maximum(right, left))
        canvas.ball((62, -26, -150), (42, 36, 70), 12, z, within=left)  # stomach, its gas in front
        canvas.ball((58, -46, -145), (28, 14, 45), AIR, z, within=left)
        canvas.ball((98, 36, -150), (26, 40, 55), 125, z, within=left)  # spleen
        canvas.ball((-48, -4, -165), (86, 78, 104), self.liver, z, within=right)
        for x, y, thick in ((-40, 5, 5), (-62, -22, 4), (-74, 24, 4), (-28, 30, 8)):
            canvas.ball((x, y, -150), (thick, thick, 60), 165, z, within=right)

    def _lungs(self, canvas: Canvas, z: float, index: int) -> None:
        wide, deep = _lung_size(z)
        canvas.ellipse(0, -6, 34, 74, -85)  # fat of the mediastinum
        if wide < 4:
            return
        for side in (-1, 1):
            above = None
            if z < -50:
                above = np.clip((z - self.domes[side]) / np.float32(self.slice_mm), 0, 1)
            canvas.ellipse(side * 70, -2, wide, deep, self.lung, within=above)
        for x, y, radius in self.vessels.get(index, ()):
            canvas.ellipse(x, y, max(radius, 0.5), max(radius, 0.5), 120)
        canvas.ball((-82, 30, 62), (4.6, 4.2, 4.6), 60, z)  # a nodule in the right upper lobe

    @staticmethod
    def _mediastinum(canvas: Canvas, z: float) -> None:
        canvas.ball((22, -28, -62), (64, 52, 66), -80, z)  # fat around the heart
        canvas.ball((22, -28, -62), (59, 47, 61), 105, z)
        canvas.ball((4, -50, -62), (30, 19, 42), 235, z)  # right ventricle
        canvas.ball((48, -22, -68), (24, 20, 38), 190, z)  # left ventricle
        canvas.ball((-26, -22, -52), (19, 24, 30), 240, z)  # right atrium
        canvas.ball((14, 8, -36), (30, 17, 20), 205, z)  # left atrium
        if z < 52:
            canvas.ellipse(24, 40, 13, 13, 20)
            canvas.ellipse(24, 40, 11.8, 11.8, BLOOD)  # descending aorta
        if -30 < z < 46:
            canvas.ellipse(-10, -26, 16, 16, 20)
            canvas.ellipse(-10, -26, 14.8, 14.8, BLOOD)  # ascending aorta
        canvas.ball((17, -32, 4), (15, 14, 24), 260, z)  # trunk and branches of the pulmonary artery
        canvas.ball((-14, -6, 8), (36, 9, 10), 260, z)
        canvas.ball((30, -4, 14), (16, 20, 10), 260, z)
        if -24 < z < 100:
            canvas.ellipse(-30, -16, 9, 9, 320)  # superior vena cava
        if 44 <= z < 62:
            canvas.ellipse(7, 6, 40 - abs(z - 53) * 0.7, 12.5, BLOOD, angle=1.1)  # aortic arch
        if z >= 60:
            for x, y in ((-16, -12), (4, -14), (20, 2)):
                canvas.ellipse(x + (z - 60) * 0.06 * math.copysign(1, x), y, 6, 6, BLOOD)
        canvas.ellipse(4, 34, 8, 6, 40)  # oesophagus
        canvas.ellipse(4, 33, 2.4, 1.6, AIR)
        if z > 26:
            canvas.ellipse(0, 12, 10.5, 9.5, 20)  # trachea
            canvas.ellipse(0, 12, 9, 8, AIR)
        elif z > -6:
            apart = (26 - z) * 1.15
            for side in (-1, 1):
                canvas.ellipse(side * apart, 14, 8.5 + apart * 0.1, 7, 30)
                canvas.ellipse(side * apart, 14, 7 + apart * 0.1, 5.6, AIR)

    @staticmethod
    def _spine(canvas: Canvas, z: float) -> None:
        canvas.ellipse(0, 68, 36, 30, MUSCLE)
        height = (z - LOWEST_MM) % VERTEBRA_MM
        if height < 5.5:
            canvas.ellipse(0, 58, 18, 14, 85)  # disc between two vertebrae
        else:
            canvas.ellipse(0, 58, 18, 14.5, CORTEX - 150)
            plate = height < 7.5 or height > VERTEBRA_MM - 2
            canvas.ellipse(0, 58, 16.4, 12.9, CORTEX - 250 if plate else MARROW)
        canvas.ellipse(0, 80, 14, 12, CORTEX - 100)
        if 8 < height < 18:
            for side in (-1, 1):
                canvas.ellipse(side * 24, 84, 15, 5, CORTEX - 150, angle=side * 0.35)
                canvas.ellipse(side * 24, 84, 13, 3, MARROW, angle=side * 0.35)
        canvas.ellipse(0, 99, 3.6, 13, CORTEX - 150)
        canvas.ellipse(0, 99, 1.8, 11, MARROW)
        canvas.ellipse(0, 79.5, 9.5, 8.5, 20)
        canvas.ellipse(0, 79.5, 6, 5, 42)  # cord

    @staticmethod
    def _ribs(canvas: Canvas, z: float) -> None:
        wide, deep = _cage_size(z)
        if -75 < z < 110:
            canvas.ellipse(0, -deep - 1, 19, 6.5, CORTEX - 200)  # breastbone
            canvas.ellipse(0, -deep - 1, 17, 4.8, MARROW)
        if 98 < z < 122:
            for side in (-1, 1):  # collar bones
                canvas.ellipse(side * (34 + (z - 98) * 2.2), -deep + 4, 22, 6.5, CORTEX, angle=side * 0.3)
                canvas.ellipse(side * (34 + (z - 98) * 2.2), -deep + 4, 19.5, 4.2, MARROW, angle=side * 0.3)
        spots = []
        for rib in RIBS:
            head = 138 - rib * 24.5  # height at the spine; a rib falls as it comes forward
            fall = 62 + 7 * rib
            for step in range(80):
                turn = step / 79  # 0 at the spine, 1 at the front end
                away = z - (head - fall * turn**1.15)
                if abs(away) < 6.5:
                    angle = math.pi / 2 - 0.22 - turn * 2.45
                    spots.append((math.cos(angle), math.sin(angle), math.sqrt(1 - (away / 6.5) ** 2), turn))
        for value, thin in ((CORTEX - 60, 0.0), (MARROW, 1.5)):
            for cos, sin, full, turn in spots:
                radius = 4.9 * full - thin
                shade = 130 if turn > 0.9 else value  # cartilage
                for side in (-1, 1):
                    canvas.ellipse(side * wide * cos, 4 + deep * sin, radius, radius, shade)


def _turned(aim: Point, spread: Point, dice: random.Random) -> Point:
    """A unit vector near `aim`."""
    x, y, z = (part + dice.gauss(0, width) for part, width in zip(aim, spread, strict=True))
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def _dome_height(x: Any, y: Any, side: int) -> Any:
    """Height of the diaphragm over a point (or points); the right dome stands higher, over the liver."""
    top = -62.0 if side < 0 else -74.0
    return top - 78 * (((x - side * 66) / 62) ** 2 + ((y + 8) / 84) ** 2) ** 1.2


def _in_lung(place: Point, side: int) -> bool:
    x, y, z = place
    wide, deep = _lung_size(z)
    if wide < 4:
        return False
    inside = ((x - side * 70) / (wide - 3)) ** 2 + ((y + 2) / (deep - 3)) ** 2 < 1
    return inside and bool(z > _dome_height(x, y, side) + 3)


def _body_size(z: float) -> tuple[float, float]:
    rise = max(0.0, (z - 70) / 95)
    return 165 - 14 * rise**2, 116 - 26 * rise**1.5


def _cage_size(z: float) -> tuple[float, float]:
    rise = max(0.0, (z + 40) / 200)
    return 136 - 78 * rise**2.3, 95 - 42 * rise**2.0


def _lung_size(z: float) -> tuple[float, float]:
    """Half width and half depth of one lung, 0 above the apex."""
    if z >= APEX_MM:
        return 0.0, 0.0
    rise = max(0.0, (z + 50) / (APEX_MM + 50))
    full = math.sqrt(1 - rise**2.4)
    return 57 * full, 87 * full**1.15
