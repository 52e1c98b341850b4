# SPDX-License-Identifier: Apache-2.0
"""What operators share that read a video frame by frame: the whole grid, budgets of frames, the best of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tokenprune.budget import _fill
from tokenprune.device import places_where, upload
from tokenprune.errors import InvalidValueError
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

_ONE = 2**40  # a share of 1 as an integer


def require_grid(name: str, tokens: VisualTokens) -> VisualTokens:
    """The tokens, or :class:`InvalidValueError` where some were merged or dropped before."""
    if not tokens.is_full_grid:
        raise InvalidValueError(
            f"{name} must come first: it needs all {tokens.volume} tokens of the grid {tokens.grid}, got {len(tokens)}"
        )
    return tokens


def shares_of(weights: Sequence[float], capacities: Sequence[int], budget: int) -> list[int]:
    """``budget`` split in proportion to real ``weights`` by largest remainder, none above its capacity.

    Ties go to the earlier; what a full one cannot take goes on to the others. A share may be 0.

    >>> shares_of([0.5, 0.25, 0.25], [9, 9, 9], 5)
    [3, 1, 1]
    """
    largest = max(weights, default=0.0)
    wishes = [round(weight / largest * _ONE) if largest > 0 else 1 for weight in weights]
    return _fill(wishes, capacities, budget)


def best_of_each_frame(scores: Tensor, shares: Sequence[int]) -> Tensor:
    """Raster indices, sorted, of the ``shares[t]`` highest ``scores`` ``(T, L)`` of each frame, ties to the lower."""
    order = torch.argsort(scores, dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(
        1, order, torch.arange(scores.shape[1], device=order.device).expand_as(order)
    )
    counts = upload(torch.tensor(shares, dtype=torch.int64, device="cpu"), scores.device)
    return places_where((ranks < counts[:, None]).flatten(), sum(shares))


def kept_with_scores(anchors: Tensor, scores: Tensor) -> TokenPlan:
    """The pruning that keeps ``anchors``, with the ``(N,)`` scores it was decided by."""
    return replace(TokenPlan.keeping(anchors, scores.numel()), scores=scores.flatten())
