# SPDX-License-Identifier: Apache-2.0
"""The attention the layer itself computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tokenprune.attention_view import attention_of
from tokenprune.scorers.attention import attention_scores, check_head_reduction
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class RopeCausalScore:
    """How strongly any text row attends to a visual token, as the layer itself does: with RoPE, causally.

    Softmax in fp32 over every key the row may see: up to itself, padding masked, earlier turns included. PruneVid
    (arXiv 2412.16117, eq. 7 and 8); the paper takes the maximum over text tokens and does not speak of heads.

    >>> keys = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]])
    >>> view = tp.AttentionView.of(torch.ones(1, 1, 2), keys, visual_columns=torch.tensor([0, 1]))
    >>> RopeCausalScore().score(tp.VisualTokens(torch.zeros(2, 1), (2, 1, 1), signals={"attention": view}))
    tensor([0.9790, 0.0141])

    Args:
        head_reduction: ``"max"``: largest over text rows and heads; ``"mean"``: the mean over heads of each head's
            largest over text rows.

    Raises:
        InvalidValueError: an unknown ``head_reduction``.
    """

    head_reduction: str = "max"

    reads: ClassVar[tuple[str, ...]] = ("attention",)

    def __post_init__(self) -> None:
        check_head_reduction(self.head_reduction)

    def score(self, tokens: VisualTokens) -> Tensor:
        """``(N,)`` fp32 probabilities in [0, 1]."""
        view = attention_of(tokens)
        return attention_scores(view, rotated=True, allowed=view.visible, head_reduction=self.head_reduction)
