# SPDX-License-Identifier: Apache-2.0
"""PruneVid's second stage: the text's attention at one layer decides which visual tokens go on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.budget import Budget, as_fraction
from tokenprune.device import places_where
from tokenprune.errors import InvalidValueError
from tokenprune.layers import check_layer
from tokenprune.operator import AFTER_LAYER, TokenScorer, check_modalities
from tokenprune.operators.cover import first_picks
from tokenprune.operators.per_frame import require_signal
from tokenprune.operators.selection import SELECTIONS, check_selection
from tokenprune.plan import TokenPlan
from tokenprune.scorers import as_scorer
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True, init=False)
class AttnPrune:
    """Keep the visual tokens that score highest after decoder layer ``layer``; the others leave later layers and cache.

    PruneVid (arXiv 2412.16117), section on LLM-guided token selection, eq. 7 and 8; ``floor`` is this package's own.

    Differs from the authors' code, as the paper does: scores are of the attention that the layer uses, after RoPE and
    causal, and one ranking is kept; ``scorer="content"`` and ``select="stratified"`` are nearer to the code.

    Published: only with the other two stages, see :class:`STMerge`.

    >>> AttnPrune(layer=0.36, keep_ratio=0.4, floor=0.5).needs
    ('attention', 'embeddings')

    Args:
        layer: layers 0..layer see every token, later ones the kept; a 0-based int, or a float in (0, 1): that fraction
            of the depth, rounded down. The cache of layers 0..layer is cut too.
        keep_ratio: fraction of a prompt row's visual tokens that is **kept**, rounded up.
        keep: exact number kept per prompt row, instead of ``keep_ratio``.
        scorer: ``"rope_causal"`` (the layer's own attention, as in the paper), ``"content"`` (before RoPE, without
            causality, as in the paper's code), ``"norm"`` (key norms, a fallback), or any :class:`TokenScorer`.
            A name is replaced by the scorer it stands for.
        select: ``"global"``: one ranking, as in the paper; ``"stratified"``: the same budget shared out over the
            blocks (static block or frame) in proportion to their sizes, the best of each, near to the paper's code.
        modalities: which visual tokens are scored and may be cut: ``"video"``, ``"image"`` or both.
        floor: share of the budget, rounded up, that goes to the first picks of :class:`Cover` among the features that
            entered the LLM, so that evidence which the question does not name survives; scores decide on the rest.

    Raises:
        BudgetError: not exactly one of ``keep_ratio`` and ``keep``, or a value that is not allowed.
        InvalidValueError: any other argument that is not allowed.
    """

    layer: int | float
    keep_ratio: float | None
    keep: int | None
    scorer: TokenScorer
    select: str
    modalities: tuple[str, ...]
    floor: float

    about: ClassVar[About] = About("arXiv 2412.16117", "CC BY-NC-SA 4.0", "H R L d")
    site: ClassVar[str] = AFTER_LAYER

    def __init__(
        self,
        layer: int | float = 0.36,
        keep_ratio: float | None = None,
        keep: int | None = None,
        scorer: str | TokenScorer = "rope_causal",
        select: str = "global",
        modalities: Sequence[str] = ("video",),
        floor: float = 0.0,
    ) -> None:
        Budget(keep_ratio, keep)
        check_selection(select)
        as_fraction("floor", floor, low_open=False)
        # Written out because scorer takes more than it holds: names go in, scorers come out.
        object.__setattr__(self, "layer", check_layer("layer", layer))
        object.__setattr__(self, "keep_ratio", keep_ratio)
        object.__setattr__(self, "keep", keep)
        object.__setattr__(self, "scorer", as_scorer(scorer))
        object.__setattr__(self, "select", select)
        object.__setattr__(self, "modalities", check_modalities(modalities))
        object.__setattr__(self, "floor", floor)

    @property
    def budget(self) -> Budget:
        """How many of a row's visual tokens stay."""
        return Budget(self.keep_ratio, self.keep)

    @property
    def needs(self) -> tuple[str, ...]:
        """The layer's attention, unless the scorer reads nothing; with a floor, what entered the LLM."""
        read = ("attention",) if getattr(self.scorer, "reads_attention", True) else ()
        return (*read, "embeddings") if self.floor else read

    @property
    def reads(self) -> tuple[str, ...] | None:
        """What the scorer says that it reads of the layer: those of this package the attention, and no features."""
        return getattr(self.scorer, "reads", None)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Score the visual tokens of a prompt row and keep the best of them; blocks are those that a merger left.

        Raises:
            InvalidValueError: a score is NaN (this waits for the device), or the floor's signal is missing.
        """
        total, device = len(tokens), tokens.features.device
        count = self.budget.count(total)
        if count == total:
            return TokenPlan.identity(total, device)
        first = None
        if self.floor:
            share = math.ceil(as_fraction("floor", self.floor, low_open=False) * count)
            first = first_picks(tokens, require_signal(self, tokens, "embeddings"), share).to(device)
        scores = self.scorer.score(tokens).to(device)
        return replace(self.choose(scores, tokens.labelled_blocks(), first), scores=scores.detach())

    def choose(self, scores: Tensor, blocks: Tensor, first: Tensor | None = None) -> TokenPlan:
        """Prune by ``scores`` ``(N,)``, higher stays, ties to the lower index; ``blocks`` ``(N,)`` int64 labels.

        ``first`` are indices of tokens that stay whatever their scores, at most as many as the budget; with
        ``"stratified"`` the rest of the budget is shared out over what is left of the blocks.

        Raises:
            InvalidValueError: shapes do not fit, or a score is NaN (this waits for the device).
        """
        total = len(scores)
        if scores.shape != (total,) or blocks.shape != (total,):
            raise InvalidValueError(
                f"scores and blocks must both have shape (N,), got {tuple(scores.shape)} and {tuple(blocks.shape)}"
            )
        count = self.budget.count(total)
        if count == total:
            return TokenPlan.identity(total, scores.device)
        if bool(scores.isnan().any()):
            raise InvalidValueError(f"scores of {type(self.scorer).__name__} must be numbers, but they hold NaN")
        if first is None:
            return TokenPlan.keeping(SELECTIONS[self.select](scores, blocks, count), total)
        stays = torch.zeros(total, dtype=torch.bool, device=scores.device)
        stays[first] = True
        others = places_where(~stays, total - len(first))
        if count > len(first):
            stays[others[SELECTIONS[self.select](scores[others], blocks[others], count - len(first))]] = True
        return TokenPlan.keeping(places_where(stays, count), total)
