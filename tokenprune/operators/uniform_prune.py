# SPDX-License-Identifier: Apache-2.0
"""Baselines at :class:`AttnPrune`'s site and budget that do not look at the tokens: even spacing, and chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from tokenprune.about import About
from tokenprune.budget import Budget
from tokenprune.layers import check_layer
from tokenprune.operator import AFTER_LAYER, check_modalities
from tokenprune.operators.random import check_seed, drawn
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class UniformPrune:
    """Keep evenly spaced visual tokens of each row, in prompt order: the middle one of K strips of equal length.

    >>> UniformPrune(layer=10, keep_ratio=0.25).plan(VisualTokens(torch.zeros(12, 8), grid=(3, 2, 2))).anchors
    tensor([ 2,  6, 10])

    Args:
        layer: as in :class:`AttnPrune`.
        keep_ratio: fraction of a row's visual tokens that is **kept**, rounded up.
        keep: exact number kept per row, instead of ``keep_ratio``.
        modalities: which visual tokens may be cut: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: not exactly one of ``keep_ratio`` and ``keep``, or a value that is not allowed.
        InvalidValueError: any other argument that is not allowed.
    """

    layer: int | float = 0.36
    keep_ratio: float | None = None
    keep: int | None = None
    modalities: tuple[str, ...] = ("video",)

    about: ClassVar[About] = About("a baseline", "no code", "K")
    site: ClassVar[str] = AFTER_LAYER
    reads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_layer("layer", self.layer)
        Budget(self.keep_ratio, self.keep)
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    @property
    def budget(self) -> Budget:
        """How many of a row's visual tokens stay."""
        return Budget(self.keep_ratio, self.keep)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """The pruning of so many tokens; what they hold does not matter."""
        total, device = len(tokens), tokens.features.device
        count = self.budget.count(total)
        if count == total:
            return TokenPlan.identity(total, device)
        strips = torch.arange(count, device=device)
        return TokenPlan.keeping((2 * strips + 1) * total // (2 * count), total)


@dataclass(frozen=True)
class RandomPrune:
    """Keep visual tokens drawn by a seeded generator of its own: same seed and number of tokens, same choice.

    Rows with equally many tokens keep the same places. A smaller budget keeps a subset of what a larger one keeps.

    >>> RandomPrune(layer=10, keep_ratio=0.25).plan(VisualTokens(torch.zeros(12, 8), grid=(3, 2, 2))).kept
    3

    Args:
        layer: as in :class:`AttnPrune`.
        keep_ratio: fraction of a row's visual tokens that is **kept**, rounded up.
        keep: exact number kept per row, instead of ``keep_ratio``.
        seed: integer in [0, 2**63); the global generators are neither read nor moved.
        modalities: which visual tokens may be cut: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: not exactly one of ``keep_ratio`` and ``keep``, or a value that is not allowed.
        InvalidValueError: any other argument that is not allowed.
    """

    layer: int | float = 0.36
    keep_ratio: float | None = None
    keep: int | None = None
    seed: int = 0
    modalities: tuple[str, ...] = ("video",)

    about: ClassVar[About] = About("a baseline", "no code", "N")
    site: ClassVar[str] = AFTER_LAYER
    reads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_layer("layer", self.layer)
        Budget(self.keep_ratio, self.keep)
        check_seed(self.seed)
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    @property
    def budget(self) -> Budget:
        """How many of a row's visual tokens stay."""
        return Budget(self.keep_ratio, self.keep)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """The pruning of so many tokens; what they hold does not matter."""
        total, device = len(tokens), tokens.features.device
        count = self.budget.count(total)
        if count == total:
            return TokenPlan.identity(total, device)
        return TokenPlan.keeping(drawn(count, total, self.seed).to(device), total)
