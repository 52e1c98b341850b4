# SPDX-License-Identifier: Apache-2.0
"""A budget shared over frames in proportion to real weights, and a pruning with the scores it was decided by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from tokenprune.budget import _fill
from tokenprune.plan import TokenPlan

_ONE = 2**40  # a share of 1 as an integer


def shares_of(weights: Sequence[float], capacities: Sequence[int], budget: int) -> list[int]:
    """``budget`` split in proportion to real ``weights`` by largest remainder, none above its capacity.

    Ties go to the earlier; what a full one cannot take goes on to the others. A share may be 0.

    >>> shares_of([0.5, 0.25, 0.25], [9, 9, 9], 5)
    [3, 1, 1]
    """
    largest = max(weights, default=0.0)
    wishes = [round(weight / largest * _ONE) if largest > 0 else 1 for weight in weights]
    return _fill(wishes, capacities, budget)


def kept_with_scores(anchors: Tensor, scores: Tensor) -> TokenPlan:
    """The pruning that keeps ``anchors``, with the ``(N,)`` scores it was decided by."""
    return replace(TokenPlan.keeping(anchors, scores.numel()), scores=scores.flatten())
