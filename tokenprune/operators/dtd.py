# SPDX-License-Identifier: Apache-2.0
"""TimeChat-Online's differential token drop: what has not changed since the frame before is dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.batching import pieces
from tokenprune.budget import Budget
from tokenprune.operators.per_frame import require_full_grid
from tokenprune.operators.similarity_cut import ALWAYS_KEPT, budget_of, check_cut, cut
from tokenprune.operators.unit_vectors import cosines_of, deciding, units
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class DTD:
    """Drop the tokens that are too similar to the token at the same place of the frame before.

    TimeChat-Online (arXiv 2504.17343), differential token drop on features. With ``s[t, p] = cos(x[t, p],
    x[t-1, p])``, the frame before as it was and not as it was pruned, a token is dropped if ``s > threshold``; frame 0
    stays. With ``keep_ratio`` or ``keep`` the tokens are taken in the order of rising ``s``, frame 0 first, until the
    budget is met, and the threshold is not used.

    Differs from the authors' code: frames come from the grid, not from time positions (two frames may share one);
    cosines are computed in fp32 and resolved to 1e-6, and of equal ones the lower index stays; a zero token has cosine
    0. Their other form, a share of each frame, is left to the budget, which is exact; pixels are not compared.

    >>> tokens = VisualTokens(torch.ones(6, 4), grid=(3, 1, 2))
    >>> DTD().plan(tokens).anchors
    tensor([0, 1])

    Args:
        threshold: the paper's tau, in [-1, 1]; left out: 0.5, unless a budget is given.
        keep_ratio: fraction of the video's tokens **kept**, met exactly.
        keep: exact number of tokens kept, instead of ``keep_ratio``.

    Raises:
        BudgetError: more than one of the three given, or a budget that is not allowed.
        InvalidValueError: ``threshold`` is no number in [-1, 1].
    """

    threshold: float | None = None
    keep_ratio: float | None = None
    keep: int | None = None

    about: ClassVar[About] = About("arXiv 2504.17343", "BSD-3-Clause", "N D")
    needs_full_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_cut(self.threshold, self.keep_ratio, self.keep)

    @property
    def budget(self) -> Budget | None:
        """The exact budget; None where the threshold decides."""
        return budget_of(self.keep_ratio, self.keep)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """The pruning of one video; ``scores`` are 1 - s, 3 for frame 0.

        Raises:
            InvalidValueError: tokens were merged or dropped before, or hold NaN or infinity.
        """
        require_full_grid(self, tokens)
        if self.budget is not None and self.budget.count(len(tokens)) == len(tokens):
            return TokenPlan.identity(len(tokens), tokens.features.device)
        with deciding(tokens):
            frames = tokens.features.reshape(tokens.grid[0], -1, tokens.features.shape[1])
            return cut(_to_the_frame_before(frames), 0.5 if self.threshold is None else self.threshold, self.budget)


def _to_the_frame_before(frames: Tensor) -> Tensor:
    """Cosines ``(T*L,)`` of each token of ``frames`` ``(T, L, D)`` with the one before it."""
    count, length, dim = frames.shape
    parts = [torch.full((length,), ALWAYS_KEPT, device=frames.device)]
    for piece in pieces(count - 1, length * dim, frames.device):
        both = units(frames[piece.start : piece.stop + 1])
        parts.append(cosines_of(both[1:], both[:-1]).flatten())
    return torch.cat(parts)
