# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the world: sizes, colours, shapes, letters, and the small masks they are drawn with."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

SIZE = 168
"""Side of a frame in pixels."""
FRAMES = 16
"""Frames in a clip."""
FPS = 2
"""Frames per second of a clip written to a file: what Qwen2.5-VL samples by default, so that no frame is lost."""
CELL = 28
"""Side of the square that one visual token covers (patch 14, merged 2 x 2)."""
GRID = SIZE // CELL
SLOT = 2
"""Frames that one visual token covers."""
SLOTS = FRAMES // SLOT

COLOURS: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "cyan")
RGB = np.array(
    [(225, 40, 40), (40, 175, 60), (50, 80, 235), (240, 220, 40), (170, 50, 200), (50, 215, 225)], dtype=np.int16
)
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross")
LETTERS: tuple[str, ...] = ("X", "O", "T", "L")
DIRECTIONS: tuple[str, ...] = ("left", "right", "up", "down")
STEPS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)], dtype=np.int64)
"""(x, y) of one step in each of `DIRECTIONS`."""
SIDES: tuple[str, ...] = ("left", "right", "top", "bottom")

FLASH_RADIUS = 8
SIGN_RADIUS = 10

Mask = npt.NDArray[np.bool_]


@cache
def shape_mask(shape: int, radius: int) -> Mask:
    """Pixels of a shape, `(2 * radius + 1, 2 * radius + 1)`."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    name = SHAPES[shape]
    if name == "circle":
        return np.hypot(x, y) <= radius
    if name == "square":
        return np.maximum(abs(x), abs(y)) <= 0.86 * radius
    if name == "triangle":
        return (y <= 0.85 * radius) & (abs(x) <= (y + radius) * 0.56)
    return np.minimum(abs(x), abs(y)) <= 0.32 * radius


@cache
def flash_masks() -> tuple[Mask, Mask]:
    """The white halo and the coloured heart of a flash, each `(2 * FLASH_RADIUS + 1,) * 2`."""
    y, x = np.mgrid[-FLASH_RADIUS : FLASH_RADIUS + 1, -FLASH_RADIUS : FLASH_RADIUS + 1]
    distance = np.hypot(x, y)
    return (distance <= FLASH_RADIUS) & (distance > 5.5), distance <= 5.5


@cache
def letter_mask(letter: int) -> Mask:
    """White pixels of a letter on its plate, `(2 * SIGN_RADIUS + 1,) * 2`."""
    y, x = np.mgrid[-SIGN_RADIUS : SIGN_RADIUS + 1, -SIGN_RADIUS : SIGN_RADIUS + 1].astype(np.float64)
    inside = np.maximum(abs(x), abs(y)) <= 7.5
    name = LETTERS[letter]
    if name == "X":
        return inside & (np.minimum(abs(x - y), abs(x + y)) <= 2)
    if name == "O":
        return (np.hypot(x, y) <= 7.5) & (np.hypot(x, y) >= 4.5)
    if name == "T":
        return inside & ((y <= -4.5) | (abs(x) <= 1.5))
    return inside & ((y >= 4.5) | (x <= -4.5))


@cache
def side_cells(side: int) -> tuple[tuple[int, int], ...]:
    """Cells `(row, column)` that lie clearly on one side: the diagonals belong to none."""
    middle = (GRID - 1) / 2
    found: list[tuple[int, int]] = []
    for row in range(GRID):
        for column in range(GRID):
            dy, dx = row - middle, column - middle
            if abs(dy) == abs(dx):
                continue
            name = ("left" if dx < 0 else "right") if abs(dx) > abs(dy) else ("top" if dy < 0 else "bottom")
            if name == SIDES[side]:
                found.append((row, column))
    return tuple(found)
