# SPDX-License-Identifier: Apache-2.0
"""A floor under scores, slow: the first of one order stay whatever their scores, the best of the others fill up.

reading: the floor's share of the budget is rounded up, so that a budget of one goes to the order.
reading: with blocks, the rest of the budget is split over what the floor has left of each, in the order of labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from . import cover
from .deciding import split


def reference(
    scores: Sequence[float], blocks: Sequence[int] | None, embeddings: np.ndarray, budget: int, floor: float
) -> tuple[list[int], float]:
    """Sorted indices that stay, ``budget`` < N of them, and how near the order was to a tie."""
    total = len(scores)
    share = math.ceil(Fraction(str(floor)) * budget)
    order = cover.reference(embeddings, (total, 1, 1), keep=share) if share else None
    first = [] if order is None or order.order is None else list(order.order)
    left = [i for i in range(total) if i not in first]
    groups = (
        [left] if blocks is None else [[i for i in left if blocks[i] == b] for b in sorted({blocks[i] for i in left})]
    )
    sizes = [len(group) for group in groups]
    shares = split(sizes, sizes, budget - len(first), at_least_one=True)
    for group, count in zip(groups, shares, strict=True):
        first += sorted(group, key=lambda i: (-scores[i], i))[:count]
    return sorted(first), math.inf if order is None else order.margin
