"""DICOM's wildcards, `*` and `?` (PS3.4 §C.2.2.2.4), as regular expressions that take linear time. Pure."""

from __future__ import annotations

import re


def regex(pattern: str, one: str = ".") -> str:
    """For `re.fullmatch` with `re.DOTALL`. `one` is what a `?` stands for and a `*` repeats.

    What stands between two `*` may as well be found at the first place where it fits, so that is never tried again
    (atomic groups): else a pattern such as `*a*a*a*a` would keep the server busy for as long as its sender likes.
    """
    first, *more = ("".join(one if c == "?" else re.escape(c) for c in piece) for piece in pattern.split("*"))
    if not more:
        return first
    *middle, last = more
    return first + "".join(f"(?>{one}*?{piece})" for piece in middle if piece) + f"{one}*{last}"
