# SPDX-License-Identifier: Apache-2.0
"""What operators, scorers and caches promise; anything that keeps the promise can be used, no base class needed."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from tokenprune.budget import Budget
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens
from tokenprune.view import AttentionView


@runtime_checkable
class TokenMerger(Protocol):
    """An operator before the LLM: it sees one video's tokens and decides which go on and which are merged.

    A class attribute ``needs_full_grid = True`` tells that it must come first: it reads frames and positions from
    the complete grid.
    """

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Decide; a pure function of the tokens, the same plan for the same bits."""
        ...


@runtime_checkable
class TokenScorer(Protocol):
    """How much each visual token matters to the text, read from one layer's attention.

    A class attribute ``needs_unrotated_keys = True`` tells that the scorer reads keys before RoPE, which the caches
    of earlier turns do not hold: such a scorer is refused on a continued cache. A class attribute
    ``reads_attention = False`` (default True) tells that the scorer needs neither queries nor keys: nothing is then
    captured, no text row is required, and it gets :meth:`AttentionView.unread`.
    """

    def score(self, view: AttentionView) -> Tensor:
        """``(N,)`` fp32 scores of the view's visual columns; higher stays."""
        ...


@runtime_checkable
class TokenSelector(Protocol):
    """An operator after a decoder layer: it keeps the visual tokens that score highest.

    ``layer``: layers 0..layer see every token, later ones the kept. ``modalities``: which visual tokens it may cut.
    """

    @property
    def layer(self) -> int | float: ...

    @property
    def modalities(self) -> tuple[str, ...]: ...

    @property
    def budget(self) -> Budget: ...

    @property
    def scorer(self) -> TokenScorer: ...

    def choose(self, scores: Tensor, blocks: Tensor) -> TokenPlan:
        """The pruning for one prompt row from its ``(N,)`` scores and ``(N,)`` block labels."""
        ...


Operator = TokenMerger | TokenSelector


class PrunableCache(Protocol):
    """A KV cache whose layers can be cut to a subset of their tokens, logical and stored lengths apart."""

    def cut(self, layer: int, index: Tensor, mask: Tensor) -> None:
        """Keep, in one layer, the stored tokens at ``index`` ``(B, K)``; where ``mask`` is False a slot is padding."""
        ...

    @property
    def logical_length(self) -> int:
        """Tokens the sequence has had, the removed ones included: where the next position stands."""
        ...

    @property
    def stored_length(self) -> int:
        """Slots each layer stores, the padding of shorter rows included."""
        ...
