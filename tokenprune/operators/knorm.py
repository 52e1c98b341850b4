# SPDX-License-Identifier: Apache-2.0
"""KNorm: short keys are the ones that are attended to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tokenprune.about import About
from tokenprune.attention_view import AttentionView
from tokenprune.operators.press import ScoredPress, lengths, of_tokens
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class KNorm(ScoredPress):
    """Of each layer's cache every key-value head keeps the visual tokens whose keys are shortest.

    A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression (arXiv 2406.11430): the score is minus the
    L2 norm of the key, of each head by itself. It reads no question, so the cache serves later ones as well.

    Differs from the authors' code: only visual tokens are cut, once, after the prefill; every layer keeps equally
    many, the first two layers too, which the paper spares; the budget is exact, ties go to the lower index.

    Published: text only: half of the cache without loss in language modelling, a tenth of it in passkey retrieval.

    >>> keys = torch.tensor([[[2.0], [1.0], [3.0]], [[1.0], [2.0], [3.0]]])
    >>> view = tp.AttentionView.of(keys[:, 2:], keys, torch.arange(2))
    >>> tokens = VisualTokens(torch.zeros(2, 1), (2, 1, 1), signals={"attention": view})
    >>> [plan.anchors.tolist() for plan in KNorm(keep=1).plan(tokens)]
    [[1], [0]]

    Args:
        keep_ratio: fraction of a prompt row's visual tokens that each layer and head **keeps**, in (0, 1].
        keep: exact number kept, instead of ``keep_ratio``.
        modalities: which visual tokens may be cut: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
        InvalidValueError: ``modalities`` are not allowed; or, by ``plan``, a score is NaN.
    """

    about: ClassVar[About] = About("arXiv 2406.11430", "none found", "G N d a layer")

    def scores(self, tokens: VisualTokens, view: AttentionView, count: int) -> Tensor:
        """``(kv_heads, N)`` minus the norms of the keys, in their units."""
        return -of_tokens(lengths(view.keys()), view)
