"""Text on a picture (PS3.18 §8.3.5.1.1): who, and how it was made."""

from __future__ import annotations

import unicodedata

from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_TECHNIQUE = (
    ("Modality", ""),
    ("InstitutionName", ""),
    ("StudyDate", ""),
    ("SeriesDescription", ""),
    ("KVP", " kV"),
    ("XRayTubeCurrent", " mA"),
    ("RepetitionTime", " ms TR"),
    ("EchoTime", " ms TE"),
    ("SliceThickness", " mm"),
)
_TEXT_MAX = 64
_LETTERS = (("œ", "oe"), ("Œ", "OE"), ("æ", "ae"), ("Æ", "AE"), ("ß", "ss"), ("ø", "o"), ("Ø", "O"), ("’", "'"))
_FONT_MIN = 8


def annotate(image: Image.Image, dataset: Dataset, what: frozenset[str], *, frame: int) -> None:
    """Burns text in, patient top left and technique bottom left, readable on any ground."""
    draw = ImageDraw.Draw(image)
    if "patient" in what:
        _write(draw, image, [_text(dataset, keyword) for keyword in _PATIENT], top=True)
    if "technique" in what:
        lines = [text + unit for keyword, unit in _TECHNIQUE if (text := _text(dataset, keyword))]
        _write(draw, image, [*lines, f"{frame}"], top=False)


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None or value == "":
        return ""
    return drawable(str(value).replace("^", " ").split("=")[0])[:_TEXT_MAX]


def drawable(text: str) -> str:
    """Pillow's font knows the letters of ASCII only: accents go, what has no such letter becomes a question mark."""
    for letter, plain in _LETTERS:
        text = text.replace(letter, plain)
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c.isascii() else "?" for c in plain if c.isprintable()).strip()


def _write(draw: ImageDraw.ImageDraw, image: Image.Image, lines: list[str], *, top: bool) -> None:
    text = "\n".join(line for line in lines if line)
    if not text:
        return
    size = max(_FONT_MIN, min(image.size) // 32)
    while True:
        font = ImageFont.load_default(size)
        left, upper, right, lower = draw.multiline_textbbox((0, 0), text, font=font, stroke_width=1)
        if right - left <= image.width - 4 or size <= _FONT_MIN:
            break
        size -= 1
    y = 2 if top else max(2, image.height - (lower - upper) - 6)
    white, black = ((255, 255, 255), (0, 0, 0)) if image.mode == "RGB" else (255, 0)
    draw.multiline_text((2, y), text, font=font, fill=white, stroke_width=1, stroke_fill=black)
