# SPDX-License-Identifier: Apache-2.0
"""Drop what is too similar to a frame seen before, by a threshold or down to a budget: DTD and TTF."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.budget import Budget, as_fraction
from tokenprune.errors import BudgetError
from tokenprune.messages import shown
from tokenprune.operators.budgeted import optional_budget
from tokenprune.operators.frame_shares import kept_with_scores
from tokenprune.operators.per_frame import require_full_grid
from tokenprune.operators.unit_vectors import STEP, deciding
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

ALWAYS_KEPT = -2.0
"""In place of the cosine of a token that is compared with nothing."""


@dataclass(frozen=True)
class SimilarityCut(ABC):
    """Drop the tokens whose similarity is above ``threshold``, or the most similar down to a budget.

    Args:
        threshold: in [-1, 1]; left out: :attr:`usual`, unless a budget is given.
        keep_ratio: fraction of the video's tokens **kept**, met exactly.
        keep: exact number of tokens kept, instead of ``keep_ratio``.

    Raises:
        BudgetError: more than one of the three given, or a budget that is not allowed.
        InvalidValueError: ``threshold`` is no number in [-1, 1].
    """

    threshold: float | None = None
    keep_ratio: float | None = None
    keep: int | None = None

    needs_full_grid: ClassVar[bool] = True
    usual: ClassVar[float]
    """The paper's threshold."""

    def __post_init__(self) -> None:
        if self.threshold is not None:
            as_fraction("threshold", self.threshold, low=-1.0, low_open=False)
        if sum(value is not None for value in (self.threshold, self.keep_ratio, self.keep)) > 1:
            raise BudgetError(
                "give at most one of threshold, keep_ratio (fraction kept) and keep (count kept), got "
                f"threshold={shown(self.threshold)}, keep_ratio={shown(self.keep_ratio)}, keep={shown(self.keep)}"
            )
        _ = self.budget

    @property
    def budget(self) -> Budget | None:
        """The exact budget; None where the threshold decides."""
        return optional_budget(self.keep_ratio, self.keep)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """The pruning of one video; ``scores`` are 1 - the similarity, 3 for a token that is compared with nothing.

        Waits for the device where the threshold decides how many stay.

        Raises:
            InvalidValueError: tokens were merged or dropped before, or hold NaN or infinity.
        """
        require_full_grid(self, tokens)
        count = None if self.budget is None else self.budget.count(len(tokens))
        if count == len(tokens):
            return TokenPlan.identity(len(tokens), tokens.features.device)
        with deciding(tokens):
            cosines = self._similarity(tokens)
            if count is None:
                threshold = self.usual if self.threshold is None else self.threshold
                anchors = (cosines <= round(threshold / STEP) * STEP).nonzero().squeeze(1)
            else:
                anchors = torch.argsort(cosines, stable=True)[:count].sort().values
            return kept_with_scores(anchors, 1 - cosines)

    @abstractmethod
    def _similarity(self, tokens: VisualTokens) -> Tensor:
        """``(N,)`` resolved cosines, or :data:`ALWAYS_KEPT`."""
