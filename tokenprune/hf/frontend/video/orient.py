# SPDX-License-Identifier: Apache-2.0
"""A decoded frame as it is meant to be seen: RGB, square pixels, upright."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import numpy as np

from tokenprune.hf.frontend.video.clip import Frames
from tokenprune.hf.frontend.video.source import pyav


class Upright:
    """Turns PyAV's frames of one video into ``(H, W, 3)``; one converter for all, since each holds memory.

    Args:
        aspect: width of a pixel over its height; None or 1: square.
    """

    def __init__(self, aspect: Fraction | None) -> None:
        self._aspect = aspect if aspect is not None and aspect > 0 else Fraction(1)
        self._converter = pyav().video.reformatter.VideoReformatter()

    def __call__(self, frame: Any) -> Frames:
        wide = max(round(frame.width * self._aspect), 1)
        pixels: Frames = self._converter.reformat(frame, width=wide, height=frame.height, format="rgb24").to_ndarray()
        return turned(pixels, display_matrix(frame))


def display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """``(a, b, c, d)`` of the frame's display matrix, 16.16 fixed point: x' = ax + cy, y' = bx + dy."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(found))
    return (a, b, c, d) if (a, b, c, d) != (0, 0, 0, 0) else None


def turned(pixels: Frames, matrix: tuple[int, int, int, int] | None) -> Frames:
    """Turned and mirrored as the matrix says, to the nearest quarter turn: what players do, phones write no other.

    >>> quarter = (0, 1 << 16, -1 << 16, 0)  # a phone held upright: 90 degrees clockwise
    >>> turned(np.zeros((2, 4, 3), np.uint8), quarter).shape
    (4, 2, 3)
    """
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels = pixels.swapaxes(0, 1)
        right, down = c, b
    else:
        right, down = a, d
    if right < 0:
        pixels = pixels[:, ::-1]
    if down < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
