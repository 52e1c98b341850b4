# SPDX-License-Identifier: Apache-2.0
"""TTF: one frame is the anchor; what other frames show near the same place of it is dropped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.batching import pieces
from tokenprune.operators.similarity_cut import ALWAYS_KEPT, SimilarityCut
from tokenprune.operators.unit_vectors import cosines_of, scaled, units
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class TTF(SimilarityCut):
    """Drop the tokens that resemble one of the 3 x 3 around their place in the anchor frame.

    TTF (arXiv 2605.07355), section 3.1: the anchor frame's mean has the highest cosine to the mean of all tokens. For a
    token of another frame ``best[t, p]`` is the highest cosine to the tokens at the places around ``p``, itself
    included, of the anchor frame, as far as the grid reaches; the token is dropped if ``best > threshold``. The anchor
    frame stays. With ``keep_ratio`` or ``keep`` the tokens are taken in the order of rising ``best``, the anchor frame
    first, until the budget is met, and the threshold is not used.

    The authors published no code. Of their text this keeps everything but the order: the paper puts the anchor frame in
    front, here tokens stay in raster order, so that text and positions are not moved. A dropped token is identified
    with its match and not averaged into it, so it counts as dropped. Cosines are resolved to 1e-6, ties go to the
    earlier frame and the lower index, a zero token has cosine 0.

    Published: Qwen3-VL-8B keeps 99.5 % of its accuracy at a third of the tokens (``tau=0.7``).

    >>> tokens = VisualTokens(torch.ones(6, 4), grid=(3, 1, 2))
    >>> TTF().plan(tokens).anchors
    tensor([0, 1])

    Args:
        threshold: the paper's tau, in [-1, 1]; left out: 0.7, unless a budget is given.
        keep_ratio: fraction of the video's tokens **kept**, met exactly.
        keep: exact number of tokens kept, instead of ``keep_ratio``.

    Raises:
        BudgetError: more than one of the three given, or a budget that is not allowed.
        InvalidValueError: ``threshold`` is no number in [-1, 1].
    """

    about: ClassVar[About] = About("arXiv 2605.07355", "MIT, without code", "N D")
    usual: ClassVar[float] = 0.7

    def _similarity(self, tokens: VisualTokens) -> Tensor:
        frames = tokens.features.reshape(*tokens.grid, -1)
        means = scaled(tokens.features).view(tokens.grid[0], -1, frames.shape[-1]).mean(dim=1)
        anchor = cosines_of(units(means), units(means.mean(dim=0))).argmax()
        best = _best_around(frames, frames.index_select(0, anchor[None])[0])
        best[anchor] = ALWAYS_KEPT
        return best.flatten()


def _best_around(frames: Tensor, anchor: Tensor) -> Tensor:
    """Highest cosine ``(T, H, W)`` of each token of ``frames`` ``(T, H, W, D)`` to those around it in ``anchor``."""
    count, height, width, dim = frames.shape
    target = units(anchor)
    best = torch.full((count, height, width), -torch.inf, device=frames.device)
    for piece in pieces(count, height * width * dim, frames.device):
        own = units(frames[piece])
        for (rows, rows_there), (columns, columns_there) in itertools.product(_shifts(height), _shifts(width)):
            found = cosines_of(own[:, rows, columns], target[rows_there, columns_there])
            so_far = best[piece, rows, columns]
            so_far.copy_(torch.maximum(so_far, found))
    return best


def _shifts(size: int) -> Iterator[tuple[slice, slice]]:
    """Places along one side, and the places one before, at, and one after them, where there are any."""
    for step in (-1, 0, 1):
        if size > abs(step):
            yield slice(max(0, -step), size - max(0, step)), slice(max(0, step), size + min(0, step))
