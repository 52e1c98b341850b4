# SPDX-License-Identifier: Apache-2.0
"""PyramidDrop, slow: the LLM in four equal stages, after each of the first three half of the tokens go.

What stays is what the last text row attends to most, read with the norm, queries and keys of the NEXT layer on the
states that the stage leaves: the layer's own attention would be one layer behind.

reading: ratios are of the tokens that entered the first stage, rounded up (the authors' of the original count, cut).
reading: the row is the last text row of this prefill (the authors': the last token of the prompt).
reading: a stage ends after layer ``depth * i // 4 - 1``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import fastv
from .plain import ReferencePlan
from .schedule import Staged, staged

RATIOS = (0.5, 0.25, 0.125)

RowsAt = Callable[[int, list[int]], np.ndarray]
"""``(stage, tokens that are there)`` -> ``(heads, R, n)`` attention of the next layer to those n tokens."""


def last_layers(depth: int) -> list[int]:
    """The last layer of each stage but the last."""
    return [depth * stage // 4 - 1 for stage in (1, 2, 3)]


def reference(features: np.ndarray, rows_at: RowsAt, *, ratios: Sequence[float] = RATIOS) -> Staged:
    """What each stage leaves; ``features`` are only carried, they decide nothing."""

    def decide(stage: int, there: list[int], count: int) -> ReferencePlan:
        return fastv.reference(features[there], rows_at(stage, there), keep=count)

    return staged(len(features), ratios, decide)
