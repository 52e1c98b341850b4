# SPDX-License-Identifier: Apache-2.0
"""SparseVLM: the words that speak of the picture rate its tokens, and part of what goes is recycled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.attention_view import LOGIT_BYTES, attention_of
from tokenprune.budget import as_fraction
from tokenprune.cluster import dpc_knn
from tokenprune.device import where_fp64_is
from tokenprune.errors import InvalidValueError
from tokenprune.operator import Operator
from tokenprune.operators.inside import in_steps
from tokenprune.operators.progressive import Progressive, ProgressiveStage, at_fractions
from tokenprune.operators.unit_vectors import deciding
from tokenprune.plan import TokenPlan
from tokenprune.points import Points
from tokenprune.tokens import VisualTokens

CLOSE = 1e-6
"""A word is no rater whose share exceeds the mean by less than this part of it: that is rounding."""


@dataclass(frozen=True)
class SparseVLMStage(ProgressiveStage):
    """One stage of :class:`SparseVLM`.

    Args:
        layer: as in any operator inside the LLM.
        keep_ratio: what the last stage keeps of the tokens that entered the first.
        keep: the same as a number.
        modalities: which visual tokens are rated.
        part: how much of the way down to that this stage goes, in (0, 1].
        tau: as in :class:`SparseVLM`.
        theta: as in :class:`SparseVLM`.
    """

    layer: int | float = 0.0625
    tau: float = 0.3
    theta: float = 0.1

    needs: ClassVar[tuple[str, ...]] = ("text", "attention", "embeddings")
    reads: ClassVar[tuple[str, ...]] = ("features", "attention")

    def __post_init__(self) -> None:
        super().__post_init__()
        as_fraction("tau", self.tau, low_open=False)
        as_fraction("theta", self.theta, low_open=False)

    def decide(self, tokens: VisualTokens, count: int) -> TokenPlan:
        """What stays and what is recycled; ``plan.scores`` is the raters' mean attention.

        Raises:
            InvalidValueError: a signal is missing, or anything holds NaN or infinity (this waits for the device).
        """
        with deciding(tokens):
            scores = _rated(tokens, raters_of(tokens)).to(tokens.features.device)
            if bool(scores.isnan().any()):
                raise InvalidValueError("attention must be numbers, but it holds NaN")
            stay, pool = self._counts(len(tokens), count)
            order = torch.argsort(in_steps(scores), descending=True, stable=True)
            kept, pooled = order[:stay], order[stay : stay + pool].sort().values
            home = torch.full_like(order, -1)
            home[kept] = kept
            if count > stay:
                home[pooled] = _recycled(tokens.features[pooled], pooled, count - stay)
        return replace(_merging(home, count), scores=scores)

    def _counts(self, total: int, count: int) -> tuple[int, int]:
        """How many tokens stay as they are, and how many of the others are recycled into the rest of ``count``."""
        best = 1
        for stay in range(count, 0, -1):
            pool, clusters = self._recycling(total - stay)
            if stay + clusters <= count:
                best = stay
                break
        pool = max(self._recycling(total - best)[0], count - best)
        return best, pool

    def _recycling(self, dropped: int) -> tuple[int, int]:
        """How many of so many dropped tokens the paper pools, and into how many it merges them."""
        if not self.tau or not dropped:
            return 0, 0
        pool = min(dropped, floor(Fraction(str(self.tau)) * dropped) + 1)
        return pool, min(pool, floor(Fraction(str(self.theta)) * pool) + 1)


@dataclass(frozen=True)
class SparseVLM(Progressive):
    """A schedule: at each stage the text tokens that speak of the picture rate the visual ones; part is recycled.

    SparseVLM (arXiv 2410.04417). *Raters*: of the text after the video, those tokens whose embeddings get more than the
    average when each visual token's embedding spreads a softmax over the text's, by plain products. *Score*: the
    raters' attention on a visual token in this layer, mean over raters and heads. *Recycling*: of what the ranking
    leaves out, the best ``tau``, plus one, are pooled and clustered by density peaks into ``theta`` as many, plus one;
    each cluster goes on as the mean of its hidden states. Defaults: after layers 2, 6 and 15 of 32, with the shares of
    the authors' list for 192 of 576 tokens on average, 300, 200 and 110, rounded.

    Differs from the authors' work: the paper sets each layer's count by the rank of the attention map, their code by a
    fixed list; here a budget is exact, recycled tokens included: as many stay as leave room for theirs, one at least. A
    recycled token stands at its cluster's centre and keeps that position, where theirs stand behind the last; density
    is of two neighbours where there is one cluster (theirs depends on noise then); raters are found at each stage among
    what is left; if no word is above the mean all are raters; ties go to the lower index; the caches of earlier layers
    are cut as well. ``embeddings`` are what entered the LLM; where tokens carry none, their features.

    Published: LLaVA keeps 97 % of its accuracy with 54 % fewer FLOPs; no figure for Qwen2.5-VL on video.

    >>> [stage.layer for stage in SparseVLM(keep_ratio=0.2).operators(32)]
    [2, 6, 15]

    Args:
        keep_ratio: fraction **kept** after the last stage; after stage i of S it is ``keep_ratio ** (i / S)``.
        keep: exact number kept after the last stage, in place of a ratio.
        ratios: fraction **kept** after each stage, of what entered the first; default (0.52, 0.35, 0.19), unless there
            is a budget.
        layers: the layer after which each stage acts; default: at 2, 6 and 15 thirty-seconds of the depth.
        modalities: which visual tokens are rated and may be cut: ``"video"``, ``"image"`` or both.
        tau: share of the tokens left out that is recycled, in [0, 1]; 0: none.
        theta: recycled tokens for each pooled one, in [0, 1].

    Raises:
        BudgetError: more than one of ``keep_ratio``, ``keep`` and ``ratios``, or a value that is not allowed.
        InvalidValueError: ``layers`` are not as many as ``ratios``, or any argument is not allowed.
    """

    tau: float = 0.3
    theta: float = 0.1

    published: ClassVar[tuple[float, ...]] = (0.52, 0.35, 0.19)
    about: ClassVar[About] = About("arXiv 2410.04417", "Apache-2.0", "N R D + H R L d + (tau N)^2 D a stage")
    needs: ClassVar[tuple[str, ...]] = ("text", "attention", "embeddings")
    site: ClassVar[str] = "after_layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_fraction("tau", self.tau, low_open=False)
        as_fraction("theta", self.theta, low_open=False)

    def _layers(self, depth: int, count: int) -> Sequence[int]:
        return at_fractions((0.0625, 0.1875, 0.46875), depth, count)

    def _stage(self, layer: int | float, keep_ratio: float | None, keep: int | None, part: float) -> Operator:
        return SparseVLMStage(layer, keep_ratio, keep, self.modalities, part, self.tau, self.theta)


def raters_of(tokens: VisualTokens) -> Tensor:
    """Indices of the text rows that rate: more than the mean of the visual tokens' softmax over the text.

    Raises:
        InvalidValueError: there is no text, or embeddings hold NaN or infinity (this waits for the device).
    """
    text, visual = tokens.signals.get("text"), tokens.signals.get("embeddings", tokens.features)
    if not isinstance(text, Tensor) or not len(text):
        raise InvalidValueError("SparseVLM reads the text after the video, of which these tokens carry none")
    text, visual = where_fp64_is(text).double(), where_fp64_is(visual)
    share = text.new_zeros(len(text))
    for part in visual.split(max(1, LOGIT_BYTES // (24 * len(text)))):
        share += (part.double() @ text.T).softmax(dim=1).sum(dim=0)
    share /= len(visual)
    if not bool(share.isfinite().all()):
        raise InvalidValueError("embeddings must be finite, but they hold NaN or infinity")
    raters = (share > share.mean() * (1 + CLOSE)).nonzero().squeeze(1)
    return raters if len(raters) else torch.arange(len(text), device=text.device)


def _rated(tokens: VisualTokens, raters: Tensor) -> Tensor:
    """``(N,)`` mean attention of these text rows, over heads; a few rows at a time."""
    view = attention_of(tokens)
    heads = len(view.queries())
    step = max(1, LOGIT_BYTES // (8 * heads * len(tokens)))
    parts = [view.rows(rows).sum(dim=(0, 1), dtype=torch.float32) for rows in raters.split(step)]
    return torch.stack(parts).sum(dim=0) / (heads * len(raters))


def _recycled(states: Tensor, places: Tensor, clusters: int) -> Tensor:
    """For each of the pooled ``places`` the one that is its cluster's centre."""
    points = Points(states)
    counts = torch.tensor([clusters], device=points.device)
    unit = points.dim * points.factor.double().square()  # distances are measured in the root of D
    rows = points.read(slice(None))[None]
    found = dpc_knn(rows, counts, unit, neighbours=max(2, clusters), distance_scale="raw")
    return places[found.centres[0].to(places.device)]


def _merging(home: Tensor, kept: int) -> TokenPlan:
    """The plan that merges each token into the token ``home`` ``(N,)``, an anchor's being itself; -1 drops it."""
    is_anchor = home == torch.arange(len(home), device=home.device)
    place = is_anchor.cumsum(0) - 1
    anchors = torch.argsort(is_anchor.to(torch.uint8), descending=True, stable=True)[:kept]
    return TokenPlan(anchors, torch.where(home >= 0, place[home.clamp(min=0)], -1))
