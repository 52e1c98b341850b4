# SPDX-License-Identifier: Apache-2.0
"""SnapKV: the last rows of the prompt vote for what each head keeps, neighbours together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from tokenprune.about import About
from tokenprune.attention_view import LOGIT_BYTES, AttentionView, chosen_rows
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.operators.press import ScoredPress
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class SnapKV(ScoredPress):
    """Of each layer's cache every key-value head keeps the visual tokens that the prompt's last rows attend to most.

    SnapKV (arXiv 2404.14469): the attention of an *observation window* of last rows is averaged over them, pooled
    over ``kernel`` neighbouring tokens so that clusters stay together, and ranked in each head.

    Differs from the authors' code: the window holds text after the last visual token only, all of it where that is
    shorter; only visual tokens are cut, so the window stays anyway; neighbours are those of the same video, zero beyond
    its ends; where several query heads share a key-value head their mean decides, as one cache can be kept only once;
    the budget is exact, ties go to the lower index.

    Published: text only: 3.6 times as fast in 8.2 times less memory at 16 000 tokens, scores comparable.

    >>> x = torch.tensor([[[0.0], [0.0], [3.0], [1.0]]])
    >>> view = tp.AttentionView.of(x[:, 3:], x, torch.arange(3))
    >>> tokens = VisualTokens(x[0, :3], (3, 1, 1), signals={"attention": view})
    >>> [plan.anchors.tolist() for plan in SnapKV(keep=2, kernel=3).plan(tokens)]
    [[1, 2]]

    Args:
        keep_ratio: fraction of a prompt row's visual tokens that each layer and head **keeps**, in (0, 1].
        keep: exact number kept, instead of ``keep_ratio``.
        modalities: which visual tokens may be cut: ``"video"``, ``"image"`` or both.
        window: rows of text that vote, the last of the prompt; at least 1. It should cover the question.
        kernel: tokens that are pooled, an odd number; 1: none but itself.

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
        InvalidValueError: another argument is not allowed; or, by ``plan``, there is no text after the visual tokens,
            or a score is NaN.
    """

    window: int = 32
    kernel: int = 5

    about: ClassVar[About] = About("arXiv 2404.14469", "none found", "H R L d a layer")
    needs: ClassVar[tuple[str, ...]] = ("attention",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("window", self.window), ("kernel", self.kernel)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidValueError(f"{name} must be an integer of at least 1, got {shown(value)}")
        if self.kernel % 2 == 0:
            raise InvalidValueError(f"kernel must be odd, so that a token stands in its middle, got {self.kernel}")

    def scores(self, tokens: VisualTokens, view: AttentionView, count: int) -> Tensor:
        """``(kv_heads, N)`` probabilities, averaged over rows, neighbours and the query heads of each key head."""
        votes = _votes(view, self.window)
        pooled = [
            avg_pool1d(votes[:, span.slice], self.kernel, stride=1, padding=self.kernel // 2) for span in tokens.spans
        ]
        kv_heads = len(view.keys())
        return torch.cat(pooled, dim=1).unflatten(0, (kv_heads, -1)).mean(1)


def _votes(view: AttentionView, window: int) -> Tensor:
    """``(heads, N)`` mean attention of the last rows, so many of them at a time as law 9 allows."""
    rows = chosen_rows(window, len(view.text_rows))
    step = max(1, LOGIT_BYTES // (4 * len(view.queries()) * len(view.visual_columns)))
    total = torch.stack([view.rows(part).sum(1) for part in rows.split(step)]).sum(0)
    return total / len(rows)
