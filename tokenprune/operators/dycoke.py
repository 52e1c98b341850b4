# SPDX-License-Identifier: Apache-2.0
"""DyCoke's temporal merging: of every four frames one stays whole, of the others what is new in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.budget import Budget, as_fraction, split_budget
from tokenprune.device import upload
from tokenprune.errors import BudgetError
from tokenprune.messages import shown
from tokenprune.operators.budgeted import optional_budget
from tokenprune.operators.per_frame import best_of_each, require_full_grid
from tokenprune.plan import TokenPlan
from tokenprune.points import Points, stepped, undisturbed
from tokenprune.tokens import VisualTokens

GROUP = 4
DEFAULT_K = 0.7


@dataclass(frozen=True)
class DyCoke:
    """Of frames g, g+1, g+2, g+3 keep the first whole, and of the others the tokens least like a frame before.

    DyCoke (arXiv 2411.15024), token temporal merging, its stage before the LLM. Frames g+1 and g+2 are compared with
    g, frame g+3 with g+2, by the cosine of tokens at the same place, as they came in. Each keeps the
    ``floor((1 - k) L)`` tokens of its L with the lowest cosines; the others are dropped ("merging" averages nothing).

    Differs from the authors' code: every group is treated alike, the last one too, whole or not, where the code leaves
    one of its frames alone, loses an odd last frame and fails up to four frames; kept tokens stay in raster order;
    ``1 - k`` is exact. About ``(1 + 3 (1 - k)) / 4`` of the tokens is kept, 47.5 % by default. With a budget the first
    frames stay whole and the others share the rest evenly; a budget below the whole frames is shared evenly by those,
    whose first tokens stay. Cosines that fp32 cannot tell apart are ties, which go to the lower index.

    Published: with its pruning while decoding, 1.5 times as fast in 1.4 times less memory. As run by others
    LLaVA-OneVision-7B keeps 96.5 % of its scores at 30 % of the tokens, Qwen2.5-VL-7B 94.5 % at 12.5 %.

    >>> tokens = VisualTokens(torch.eye(2).repeat(4, 1), grid=(4, 1, 2))
    >>> DyCoke(k=0.5).plan(tokens).anchors
    tensor([0, 1, 2, 4, 6])

    Args:
        k: fraction of each compared frame that is **dropped**, in [0, 1]; None: 0.7, unless a budget is given.
        keep_ratio: fraction of the tokens **kept**, in (0, 1], instead of ``k``.
        keep: exact number of tokens kept, instead of ``k``.

    Raises:
        BudgetError: more than one of ``k``, ``keep_ratio`` and ``keep`` given, or a budget that is not allowed.
        InvalidValueError: ``k`` is not allowed; or, by ``plan``, tokens were merged or dropped before, or features
            hold NaN or infinity.
    """

    k: float | None = None
    keep_ratio: float | None = None
    keep: int | None = None

    about: ClassVar[About] = About("arXiv 2411.15024", "Apache-2.0", "N D")
    site: ClassVar[str] = "before_llm"
    needs: ClassVar[tuple[str, ...]] = ()
    modalities: ClassVar[tuple[str, ...]] = ("video",)
    needs_full_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        budget = self.budget
        if self.k is not None:
            as_fraction("k", self.k, low_open=False)
        if self.k is not None and budget is not None:
            raise BudgetError(
                f"give k (fraction dropped of a frame) or a budget, not both; got k={shown(self.k)}, "
                f"keep_ratio={shown(self.keep_ratio)}, keep={shown(self.keep)}"
            )

    @property
    def budget(self) -> Budget | None:
        """The exact budget; None where ``k`` decides."""
        return optional_budget(self.keep_ratio, self.keep)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Decide which tokens go on."""
        require_full_grid(self, tokens)
        total, device = len(tokens), tokens.features.device
        counts = self._counts(tokens.grid[0], total // tokens.grid[0])
        if sum(counts) == total:
            return TokenPlan.identity(total, device)
        with undisturbed(device):
            anchors = best_of_each(_novelty(Points(tokens.features), counts), counts).to(device)
        return TokenPlan.keeping(anchors, total)

    def _counts(self, frames: int, length: int) -> list[int]:
        """How many tokens of each frame stay."""
        whole = [frame % GROUP == 0 for frame in range(frames)]
        if self.budget is None:
            k = as_fraction("k", DEFAULT_K if self.k is None else self.k, low_open=False)
            part = math.floor((1 - k) * length)
            return [length if first else part for first in whole]
        budget, firsts = self.budget.count(frames * length), sum(whole) * length
        room = [length if first == (budget <= firsts) else 0 for first in whole]
        shares = split_budget([1] * frames, room, budget if budget <= firsts else budget - firsts)
        return [length if first and budget > firsts else share for first, share in zip(whole, shares)]


def _novelty(points: Points, counts: list[int]) -> Tensor:
    """``(T, L)`` in steps: minus the cosine of each token to its place in the frame compared with; of firsts 0."""
    length = points.count // len(counts)
    compared = [frame for frame in range(len(counts)) if frame % GROUP and 0 < counts[frame] < length]
    others = [frame - (2 if frame % GROUP == 2 else 1) for frame in compared]
    novelty = torch.zeros(len(counts), length, dtype=torch.float64, device=points.device)
    where = upload(torch.tensor(compared, dtype=torch.int64, device="cpu"), points.device)
    novelty[where] = stepped(-points.cosines(compared, others, length))
    return novelty
