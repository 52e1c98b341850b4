# SPDX-License-Identifier: Apache-2.0
"""SnapKV, slow: each key-value head keeps what the last text rows attend to most, smoothed along the sequence.

reading: the window is of text rows after the video, all of them where there are fewer; text itself is never cut, so
the budget is of visual tokens and the authors' highest score for the window has no use.
reading: neighbours for the mean over ``kernel`` are visual tokens, in their order; beyond the ends there are zeros and
the divisor stays ``kernel``.
"""

from __future__ import annotations

import numpy as np

from .deciding import budget_of
from .heads import ReferenceHeads, top_of_each


def smoothed(values: list[float], kernel: int) -> list[float]:
    """The sum of the ``kernel`` values around each, over ``kernel``."""
    around = range(-(kernel // 2), kernel // 2 + 1)
    return [sum(values[i + j] for j in around if 0 <= i + j < len(values)) / kernel for i in range(len(values))]


def reference(
    rows: np.ndarray,
    kv_heads: int,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    window: int = 64,
    kernel: int = 5,
) -> ReferenceHeads:
    """``rows`` are ``(heads, R, N)`` probabilities of text rows, of which the last ``window`` count."""
    heads, _, n = rows.shape
    used = rows[:, -window:]
    group = heads // kv_heads
    scores: list[list[float]] = []
    for kv_head in range(kv_heads):
        served = range(kv_head * group, (kv_head + 1) * group)
        mean = [sum(float(used[head, :, i].mean()) for head in served) / group for i in range(n)]
        scores.append(smoothed(mean, kernel))
    return top_of_each(scores, budget_of(n, keep_ratio, keep))
