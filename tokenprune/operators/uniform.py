# SPDX-License-Identifier: Apache-2.0
"""Baseline: keep evenly spaced tokens, whatever they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from tokenprune.about import About
from tokenprune.operators.budgeted import Budgeted
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class UniformSelect(Budgeted):
    """Keep an exact number of tokens, evenly spaced in raster order from the first on, and drop the others.

    A baseline: it reads no feature. It may follow a merger; then it counts and spaces the tokens that are left.

    >>> UniformSelect(keep_ratio=0.25).plan(VisualTokens(torch.zeros(12, 8), grid=(3, 2, 2))).anchors
    tensor([0, 4, 8])

    Args:
        keep_ratio: fraction of the tokens **kept**, in (0, 1].
        keep: exact number of tokens kept, instead of ``keep_ratio``.

    Raises:
        BudgetError: both or neither given, or a value that is not allowed.
    """

    about: ClassVar[About] = About("a baseline", "no code", "K")

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """The pruning that keeps token ``floor(i * N / K)`` for each i below K."""
        total, device = len(tokens), tokens.features.device
        kept = self.budget.count(total)
        if kept == total:
            return TokenPlan.identity(total, device)
        return TokenPlan.keeping(torch.arange(kept, device=device) * total // kept, total)
