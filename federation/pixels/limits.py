"""How much one job may take."""

from __future__ import annotations

from dataclasses import dataclass

#: One message between the service and a process of the pool.
PACKET_MAX = 128 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All are checked against what is declared, before memory is taken for it."""

    frame_pixels: int = 100_000_000  # Rows × Columns
    frame_bytes: int = 512 << 20  # one frame, decoded
    input_bytes: int = 4 << 30  # a file, inflated if it is deflated
    output_bytes: int = 4 << 30  # all that one job writes
    animation_pixels: int = 256_000_000  # all frames of an animated picture
