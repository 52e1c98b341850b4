# SPDX-License-Identifier: Apache-2.0
"""Baseline: keep a fixed pseudo-random subset of the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

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

    >>> tokens = VisualTokens(torch.zeros(12, 8), grid=(3, 2, 2))
    >>> len(RandomSelect(keep_ratio=0.25).plan(tokens).apply(tokens))
    3

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
        check_seed(self.seed)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """The pruning that keeps the first K of the N tokens in a shuffled order, in raster order."""
        total, device = len(tokens), tokens.features.device
        kept = self.budget.count(total)
        if kept == total:
            return TokenPlan.identity(total, device)
        return TokenPlan.keeping(drawn(kept, total, self.seed).to(device), total)


def check_seed(seed: int) -> None:
    """Raise :class:`InvalidValueError` unless ``seed`` is an integer in [0, 2**63)."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InvalidValueError(f"seed must be an integer in [0, 2**63), got {shown(seed)}")


def drawn(kept: int, total: int, seed: int) -> Tensor:
    """``(kept,)`` sorted places of ``total``, on the CPU, so that every device draws the same."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randperm(total, generator=generator, device="cpu")[:kept].sort().values
