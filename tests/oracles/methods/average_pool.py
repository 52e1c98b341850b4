# SPDX-License-Identifier: Apache-2.0
"""Average pooling, slow: each cell of ``window`` (frames, rows, columns) becomes its mean, at its first token.

With a budget there are exactly as many cells: the box is halved along its longest side, again and again.

reading: cells that stick out at the edges are means of what is inside.
reading: of equal sides time is halved first, then rows; the first half of an odd side is the larger; the second half
gets its share of the budget rounded down, at least 1, as far as both halves can hold theirs.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from .deciding import budget_of
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, frames_of, merging

Cell = list[tuple[int, int, int]]


def halved(cell: Cell, count: int) -> list[Cell]:
    """The places ``(frame, row, column)`` of a box, parted into ``count`` boxes."""
    if count == 1:
        return [cell]
    values = [sorted({place[axis] for place in cell}) for axis in range(3)]
    axis = max(range(3), key=lambda a: (len(values[a]), -a))
    first_half = values[axis][: math.ceil(len(values[axis]) / 2)]
    first = [place for place in cell if place[axis] in first_half]
    second = [place for place in cell if place[axis] not in first_half]
    share = max(1, math.floor(Fraction(count * len(second), len(cell))))
    share = min(max(share, count - len(first)), len(second))
    return halved(first, count - share) + halved(second, share)


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    window: Grid = (1, 2, 2),
    keep_ratio: float | None = None,
    keep: int | None = None,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """The mean of every cell."""
    frames_of(features, grid)
    frames, height, width = grid
    every = [(t, h, w) for t in range(frames) for h in range(height) for w in range(width)]
    if keep_ratio is None and keep is None:
        cells: dict[tuple[int, ...], Cell] = {}
        for place in every:
            cells.setdefault(tuple(i // size for i, size in zip(place, window, strict=True)), []).append(place)
        parts = list(cells.values())
    else:
        parts = halved(every, budget_of(len(features), keep_ratio, keep))
    first = {place: min(part) for part in parts for place in part}
    return merging([every.index(first[place]) for place in every], features)
