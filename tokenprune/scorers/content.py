# SPDX-License-Identifier: Apache-2.0
"""Attention by content alone: before RoPE, without causality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tokenprune.attention_view import attention_of
from tokenprune.scorers.attention import attention_scores, check_head_reduction
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class ContentScore:
    """How strongly any text row would attend to a visual token if places did not count.

    Queries and keys before RoPE; softmax in fp32 over all keys but padding, text after the row included. This is what
    PruneVid's published code computes, where its paper describes :class:`RopeCausalScore`. Caches store keys with
    RoPE, so this scorer is refused where earlier turns are in the cache.

    >>> keys = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]])
    >>> view = tp.AttentionView.of(torch.ones(1, 1, 2), keys, visual_columns=torch.tensor([0, 1]))
    >>> ContentScore().score(tp.VisualTokens(torch.zeros(2, 1), (2, 1, 1), signals={"attention": view}))
    tensor([0.9790, 0.0141])

    Args:
        head_reduction: ``"max"``: largest over text rows and heads; ``"mean"``: the mean over heads of each head's
            largest over text rows.

    Raises:
        InvalidValueError: an unknown ``head_reduction``.
    """

    head_reduction: str = "max"

    needs_unrotated_keys: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("attention",)

    def __post_init__(self) -> None:
        check_head_reduction(self.head_reduction)

    def score(self, tokens: VisualTokens) -> Tensor:
        """``(N,)`` fp32 probabilities in [0, 1]."""
        view = attention_of(tokens)
        not_padding = view.valid_keys.unsqueeze(0)
        return attention_scores(
            view, rotated=False, allowed=lambda rows: not_padding, head_reduction=self.head_reduction
        )
