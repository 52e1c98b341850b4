# SPDX-License-Identifier: Apache-2.0
"""The length of a token's key, for models whose queries cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.attention_view import attention_of
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class KeyNormScore:
    """L2 norm of each visual token's key, largest over key heads; it does not depend on the question.

    A fallback where nothing better can be read. It is never chosen on its own: ask for it by ``scorer="norm"``.
    RoPE rotates and so keeps norms, hence the keys may be read as the cache holds them.

    >>> keys = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]])
    >>> view = tp.AttentionView.of(torch.ones(1, 1, 2), keys, visual_columns=torch.tensor([0, 1]))
    >>> KeyNormScore().score(tp.VisualTokens(torch.zeros(2, 1), (2, 1, 1), signals={"attention": view}))
    tensor([5., 1.])
    """

    reads: ClassVar[tuple[str, ...]] = ("attention",)

    def score(self, tokens: VisualTokens) -> Tensor:
        """``(N,)`` fp32 norms, in the units of the keys."""
        view = attention_of(tokens)
        with torch.no_grad():
            norms = torch.linalg.vector_norm(view.keys(rotated=True), dim=-1, dtype=torch.float32)
            return norms.index_select(1, view.visual_columns).amax(dim=0)
