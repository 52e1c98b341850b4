# SPDX-License-Identifier: Apache-2.0
"""Baseline: keep a fixed pseudo-random subset of the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from tokenprune.about import About
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.operators.budgeted import Budgeted
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class RandomSelect(Budgeted):
    """Keep an exact number of tokens that depends on ``seed`` and the number of tokens only, and drop the others.

    A baseline: it reads no feature. Two videos of equal length lose the same tokens, on any device; no global random
    state is read or changed. With one seed, a smaller budget keeps a subset of what a larger one keeps.

    Args:
        keep_ratio: fraction of the tokens **kept**, in (0, 1].
        keep: exact number of tokens kept, instead of ``keep_ratio``.
        seed: which subset, in [0, 2**63).

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
        InvalidValueError: ``seed`` is not an integer in range.
    """

    seed: int = 0

    about: ClassVar[About] = About("a baseline", "no code", "N")

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise InvalidValueError(f"seed must be an integer in [0, 2**63), got {shown(self.seed)}")

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """The pruning that keeps the first K of the N tokens in a shuffled order, in raster order."""
        total, device = len(tokens), tokens.features.device
        kept = self.budget.count(total)
        if kept == total:
            return TokenPlan.identity(total, device)
        generator = torch.Generator("cpu").manual_seed(self.seed)
        chosen = torch.randperm(total, generator=generator, device="cpu")[:kept].sort().values
        return TokenPlan.keeping(chosen.to(device), total)
