# SPDX-License-Identifier: Apache-2.0
"""FrameFusion: tokens that resemble the one before at their place are merged; what is left is ranked by attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.batching import pieces
from tokenprune.device import places_where
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.operators.inside import AtLayerOrBefore, in_steps, last_row_attention
from tokenprune.operators.selection import keep_best
from tokenprune.operators.unit_vectors import cosines_of, deciding, units
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

FIRST = -2.0
"""Similarity of a token that has none before it at its place."""


@dataclass(frozen=True)
class FrameFusion(AtLayerOrBefore):
    """Merge tokens into the one before at their place, the most similar first; attention prunes what is too many then.

    FrameFusion (arXiv 2501.01986). The tokens of one place are a chain in time; each has a similarity, the cosine to
    the token before it in the chain. If at least as many as must go have a similarity of ``similarity_lower_bound`` or
    more, the most similar of them are merged and nothing else; else all of those are merged, and of what is left the
    tokens stay that the last text token attends to most, mean over heads. A merged run goes on as the plain mean of its
    tokens, at the place of the first. Default: the threshold 0.6.

    Differs from the authors' code: it merges in several layers, between attention and MLP, until a cost is met that is
    reckoned for 28 layers, and prunes once after that; here both steps are one, after one layer, to an exact budget. A
    merged token is ranked by the mean attention on its tokens. Tokens of any grid and of several videos; of images,
    which have no time, none are merged; ties go to the lower index, cosines being resolved to 1e-6.

    ``layer=None`` acts before the LLM on features alone, which is no longer the published method: the most similar are
    merged whatever the threshold; a budget of fewer tokens than a frame has keeps the places that change most.

    Published: 70 % fewer tokens at a loss below 3 %, 1.6 to 3.6 times as fast; LLaVA-OneVision-7B at 25 % keeps 97.3 %
    as run by others. For Qwen2.5-VL the authors give no figure.

    >>> tokens = VisualTokens(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [1.0, 0.0]]), grid=(2, 1, 2))
    >>> FrameFusion(layer=None, keep=3).plan(tokens).assign
    tensor([0, 1, 0, 2])

    Args:
        layer: layers 0..layer see every token, later ones the kept; None: before the LLM.
        keep_ratio: fraction of the visual tokens **kept**.
        keep: exact number of tokens kept, instead of ``keep_ratio``.
        modalities: which visual tokens are decided about: ``"video"``, ``"image"`` or both.
        similarity_lower_bound: cosine from which on tokens are merged rather than pruned, in [-1, 1].

    Raises:
        BudgetError: not exactly one of ``keep_ratio`` and ``keep``, or a value that is not allowed.
        InvalidValueError: any other argument that is not allowed; or, by ``plan``, features or attention hold NaN or
            infinity.
    """

    layer: int | float | None = 0  # type: ignore[assignment]
    similarity_lower_bound: float = 0.6

    about: ClassVar[About] = About("arXiv 2501.01986", "MIT", "N D + H L d", ({"layer": None},))
    reads: ClassVar[tuple[str, ...]] = ("features", "attention")

    def __post_init__(self) -> None:
        super().__post_init__()
        bound = self.similarity_lower_bound
        if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not -1 <= bound <= 1:
            raise InvalidValueError(f"similarity_lower_bound must be a number in [-1, 1], got {shown(bound)}")

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The layer's attention; before the LLM nothing."""
        return () if self.layer is None else ("attention",)

    def decide(self, tokens: VisualTokens, count: int) -> TokenPlan:
        """The merging; ``plan.scores`` is 1 - the similarity to the token before, 3 for the first of a place."""
        goes = len(tokens) - count
        with deciding(tokens):
            order, chain = _chains(tokens)
            similar = _similarities(tokens.features, order, chain)
            merged = similar > FIRST if self.layer is None else similar >= self.similarity_lower_bound
            ranked = torch.argsort(similar.masked_fill(~merged, -torch.inf), descending=True, stable=True)
            merged = merged & torch.zeros_like(merged).index_fill_(0, ranked[:goes], True)
            plan = _runs(order, merged, len(tokens) - min(goes, int(merged.sum())))
            if plan.kept > count:
                rank = self._rank(tokens, plan, similar)
                plan = plan.then(TokenPlan.keeping(keep_best(rank, rank, count), plan.kept))
        return replace(plan, scores=1 - similar)

    def _rank(self, tokens: VisualTokens, plan: TokenPlan, similar: Tensor) -> Tensor:
        """``(K,)`` rank of each run: the mean attention on its tokens; before the LLM, how much it changes."""
        if self.layer is not None:
            attention = last_row_attention(tokens)
            return in_steps(plan.sum(attention) / plan.sum(torch.ones_like(attention)))
        lowest = torch.full((plan.kept,), torch.inf, device=similar.device)
        links = torch.where(similar > FIRST, similar, torch.inf)
        return -lowest.scatter_reduce(0, plan.assign, links, "amin")


def _chains(tokens: VisualTokens) -> tuple[Tensor, Tensor]:
    """``(N,)`` the tokens place by place, each place in order of time; ``(N,)`` the place of each of those."""
    device = tokens.features.device
    places = tokens.places if tokens.places is not None else torch.arange(len(tokens), device=device)
    chain = torch.empty_like(places)
    cells = first = 0
    for span in tokens.spans:
        frames, height, width = span.grid
        chain[span.slice] = first + (places[span.slice] - cells) % (height * width)
        first, cells = first + height * width, cells + frames * height * width
    order = torch.argsort(chain, stable=True)
    return order, chain[order]


def _similarities(features: Tensor, order: Tensor, chain: Tensor) -> Tensor:
    """``(N,)`` cosine of each token to the one before it in its chain."""
    similar = torch.full((len(order),), FIRST, device=features.device)
    for part in pieces(len(order) - 1, 4 * features.shape[1], features.device):
        one, other = (units(features[order[part.start + shift : part.stop + shift]]) for shift in (0, 1))
        same = chain[part] == chain[part.start + 1 : part.stop + 1]
        similar[order[part.start + 1 : part.stop + 1]] = torch.where(same, cosines_of(one, other), FIRST)
    return similar


def _runs(order: Tensor, merged: Tensor, count: int) -> TokenPlan:
    """The plan that merges each maximal run of ``merged`` ``(N,)`` tokens of a chain into the one before it."""
    starts = ~merged[order]
    last = torch.where(starts, torch.arange(len(order), device=order.device), -1).cummax(0).values
    home = torch.empty_like(order).index_put_((order,), order[last])
    place = (~merged).cumsum(0) - 1
    return TokenPlan(places_where(~merged, count), place[home])
