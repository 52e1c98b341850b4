# SPDX-License-Identifier: Apache-2.0
"""What operators inside the LLM share: a layer, a budget of a prompt row, and the attention of its last text row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.attention_view import attention_of
from tokenprune.budget import Budget
from tokenprune.errors import InvalidValueError
from tokenprune.layers import check_layer
from tokenprune.operator import AFTER_LAYER, BEFORE_LLM, check_modalities
from tokenprune.operators.frame_shares import kept_with_scores
from tokenprune.operators.selection import keep_best
from tokenprune.plan import TokenPlan
from tokenprune.points import undisturbed
from tokenprune.tokens import VisualTokens

STEPS = 2.0**19
"""Of a score's mantissa: what is this close, some 2e-6 of it, is equal."""


@dataclass(frozen=True)
class InsideLLM:
    """An operator after a decoder layer that keeps a fraction, or a number, of a prompt row's visual tokens.

    Args:
        layer: layers 0..layer see every token, later ones the kept; a 0-based int, or a float in (0, 1): that fraction
            of the depth, rounded down.
        keep_ratio: fraction of the tokens **kept**, in (0, 1].
        keep: exact number of tokens kept, instead of ``keep_ratio``.
        modalities: which visual tokens are decided about: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: not exactly one of ``keep_ratio`` and ``keep``, or a value that is not allowed.
        InvalidValueError: any other argument that is not allowed.
    """

    layer: int | float
    keep_ratio: float | None = None
    keep: int | None = None
    modalities: tuple[str, ...] = ("video",)

    site: ClassVar[str] = AFTER_LAYER
    needs: ClassVar[tuple[str, ...]] = ("attention",)

    def __post_init__(self) -> None:
        if self.site == AFTER_LAYER:
            check_layer("layer", self.layer)
        _ = self.budget
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    @property
    def budget(self) -> Budget:
        """How many of a row's visual tokens stay."""
        return Budget(self.keep_ratio, self.keep)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Decide which of a prompt row's visual tokens go on."""
        count = self.budget.count(len(tokens))
        if count == len(tokens):
            return TokenPlan.identity(len(tokens), tokens.features.device)
        with undisturbed(tokens.features.device):
            return self.decide(tokens, count)

    def decide(self, tokens: VisualTokens, count: int) -> TokenPlan:
        """The plan that leaves ``count`` tokens, which are fewer than there are."""
        raise NotImplementedError


@dataclass(frozen=True)
class AtLayerOrBefore(InsideLLM):
    """A method of the paper's layer that has a form of its own before the LLM, ``layer=None``, on features alone."""

    layer: int | float | None  # type: ignore[assignment]

    @property
    def variant(self) -> bool:
        """Whether this is the form before the LLM, which is not the published method."""
        return self.layer is None

    @property
    def site(self) -> str:  # type: ignore[override]
        """After a layer; before the LLM without one."""
        return BEFORE_LLM if self.layer is None else AFTER_LAYER


def last_row_attention(tokens: VisualTokens, layer: int = 0) -> Tensor:
    """``(N,)`` fp32: attention of the row's last text token, mean over heads, in a layer counted from the operator's.

    Raises:
        InvalidValueError: it holds NaN (this waits for the device).
    """
    scores = attention_of(tokens).rows("last", layer=layer)[:, 0].mean(dim=0).to(tokens.features.device)
    if bool(scores.isnan().any()):
        raise InvalidValueError("attention must be numbers, but it holds NaN")
    return scores


def keeping_best(scores: Tensor, count: int) -> TokenPlan:
    """The pruning that keeps the ``count`` highest of the scores ``(N,)``, ties to the lower index."""
    steps = in_steps(scores)
    return kept_with_scores(keep_best(steps, steps, count), scores)


def in_steps(scores: Tensor) -> Tensor:
    """Scores whose last bits are rounded away, so that those of copies, which differ by rounding only, are equal."""
    mantissa, exponent = torch.frexp(scores)
    return torch.ldexp((mantissa * STEPS).round() / STEPS, exponent)
