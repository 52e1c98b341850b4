# SPDX-License-Identifier: Apache-2.0
"""What operators on the finished cache share: each layer keeps the best of its tokens, each head where they say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.attention_view import AttentionView, attention_of
from tokenprune.errors import InvalidValueError
from tokenprune.operator import AFTER_PREFILL, check_modalities
from tokenprune.operators.budgeted import Budgeted
from tokenprune.operators.frame_shares import kept_with_scores
from tokenprune.operators.selection import keep_best
from tokenprune.plan import TokenPlan
from tokenprune.points import undisturbed
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class ScoredPress(Budgeted):
    """A press that ranks scores; a method is a subclass with :meth:`scores`.

    Args:
        keep_ratio: fraction of a prompt row's visual tokens that each layer **keeps**, in (0, 1].
        keep: exact number kept by each layer, instead of ``keep_ratio``.
        modalities: which visual tokens may be cut: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
        InvalidValueError: ``modalities`` are not allowed.
    """

    modalities: tuple[str, ...] = ("video",)

    site: ClassVar[str] = AFTER_PREFILL

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    def scores(self, tokens: VisualTokens, view: AttentionView, count: int) -> Tensor:
        """``(heads, N)`` fp32, or ``(N,)`` where key-value heads share the choice; the ``count`` highest stay."""
        raise NotImplementedError

    def plan(self, tokens: VisualTokens) -> TokenPlan | list[TokenPlan]:
        """Decide for one layer: a plan for each key-value head, or one for all; ties go to the lower index.

        Raises:
            InvalidValueError: the tokens carry no attention view, or a score is NaN (this waits for the device).
        """
        total, device = len(tokens), tokens.features.device
        count = self.budget.count(total)
        if count == total:
            return TokenPlan.identity(total, device)
        view = attention_of(tokens)
        with undisturbed(device):
            scores = self.scores(tokens, view, count).to(device)
            if bool(scores.isnan().any()):
                raise InvalidValueError(f"scores of {type(self).__name__} must be numbers, but they hold NaN")
            if scores.ndim == 1:
                return _best(scores, count)
            return [_best(each, count) for each in scores]


def of_tokens(stored: Tensor, view: AttentionView) -> Tensor:
    """``(kv_heads, N, ...)`` what belongs to the visual tokens, out of all ``(kv_heads, L, ...)``."""
    return stored.index_select(1, view.visual_columns.to(stored.device))


def lengths(vectors: Tensor) -> Tensor:
    """Euclidean norms along the last dimension, in fp32."""
    return torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float32)


def _best(scores: Tensor, count: int) -> TokenPlan:
    return kept_with_scores(keep_best(scores, scores, count), scores)
