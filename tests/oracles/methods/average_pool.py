# SPDX-License-Identifier: Apache-2.0
"""Average pooling, slow: each cell of ``window`` (frames, rows, columns) becomes its mean, at its first token.

reading: cells that stick out at the edges are means of what is inside; there is no budget, the window decides.
"""

from __future__ import annotations

import numpy as np

from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, frames_of, merging


def reference(
    features: np.ndarray, grid: Grid, *, window: Grid = (1, 2, 2), signals: Signals = NO_SIGNALS
) -> ReferencePlan:
    """The mean of every cell."""
    frames_of(features, grid)
    frames, height, width = grid
    home: list[int | None] = []
    for t in range(frames):
        for h in range(height):
            for w in range(width):
                first = [index - index % size for index, size in zip((t, h, w), window, strict=True)]
                home.append((first[0] * height + first[1]) * width + first[2])
    return merging(home, features)
