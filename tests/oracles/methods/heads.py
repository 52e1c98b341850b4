# SPDX-License-Identifier: Apache-2.0
"""What a press on the KV cache decides: for each key-value head which tokens stay, equally many in all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .deciding import Decisions, largest


@dataclass(frozen=True)
class ReferenceHeads:
    """The tokens that each key-value head keeps, sorted.

    Args:
        kept: for each head its K tokens; one entry where all heads share one choice.
        scores: (heads, N) what was ranked, higher is better; None where a method ranks more than once.
        forced: for each head the tokens that were taken before the last ranking.
        margin: the smallest gap, relative to the values compared, of all decisions that were not exact ties.
        tied: whether some decision was an exact tie.
    """

    kept: list[list[int]]
    scores: np.ndarray | None = None
    forced: list[list[int]] | None = None
    margin: float = math.inf
    tied: bool = False


def top_of_each(scores: Sequence[Iterable[float]] | np.ndarray, budget: int) -> ReferenceHeads:
    """The ``budget`` tokens of highest score in each head by itself, ties to the lower index."""
    decide = Decisions()
    values = np.asarray([list(row) for row in scores], dtype=np.float64)
    kept = [sorted(decide.top(row, budget, scale=largest(row))) for row in values]
    return ReferenceHeads(kept, values, margin=decide.margin, tied=decide.tied)
