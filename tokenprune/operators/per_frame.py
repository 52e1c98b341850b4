# SPDX-License-Identifier: Apache-2.0
"""What operators share that work frame by frame: the whole grid, and the best tokens of each frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenprune.device import places_where, upload
from tokenprune.errors import InvalidValueError
from tokenprune.points import Points
from tokenprune.tokens import VisualTokens


def require_full_grid(operator: object, tokens: VisualTokens) -> None:
    """Raise :class:`InvalidValueError` if tokens of the grid have been merged or dropped."""
    if not tokens.is_full_grid:
        raise InvalidValueError(
            f"{type(operator).__name__} must come first: it needs all {tokens.volume} tokens of the grid "
            f"{tokens.grid}, got {len(tokens)}"
        )


def to_the_frame_before(points: Points, frames: int) -> Tensor:
    """``(T - 1, L)`` cosine of each token from the second of T frames on to the one at its place a frame earlier."""
    return points.cosines(list(range(1, frames)), list(range(frames - 1)), points.count // frames)


def ranks(scores: Tensor) -> Tensor:
    """Place of each of the scores ``(T, L)`` in the falling order of its row, ties to the lower index."""
    order = torch.argsort(scores, dim=1, descending=True, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def best_of_each(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """Sorted raster indices of the ``counts[t]`` highest of the scores ``(T, L)`` of each frame, ties to the lower."""
    shares = upload(torch.tensor(counts, device="cpu"), scores.device)
    return places_where((ranks(scores) < shares[:, None]).flatten(), sum(counts))


def require_signal(operator: object, tokens: VisualTokens, name: str) -> Tensor:
    """The signal, which must be a tensor of finite numbers.

    Raises:
        InvalidValueError: it is missing, or holds NaN or infinity (this waits for the device).
    """
    value = tokens.signals.get(name)
    if not isinstance(value, Tensor):
        raise InvalidValueError(f"{type(operator).__name__} reads the signal {name}, which these tokens do not have")
    if not bool(torch.isfinite(value).all()):
        raise InvalidValueError(f"the signal {name} must be finite, but it holds NaN or infinity")
    return value
