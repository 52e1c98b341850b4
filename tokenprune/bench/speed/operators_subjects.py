# SPDX-License-Identifier: Apache-2.0
"""What the micro-benchmark of the operators runs on one clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tokenprune.attention_view import AttentionView
from tokenprune.bench.speed.direct import direct_merge
from tokenprune.bench.speed.scoring import AttentionShape, random_view
from tokenprune.cluster import dpc_knn, portion
from tokenprune.device import where_fp64_is
from tokenprune.operator import TokenMerger, needs_of
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.operators.average_pool import AveragePool
from tokenprune.operators.cdpruner import CDPruner
from tokenprune.operators.cover import Cover
from tokenprune.operators.divprune import DivPrune
from tokenprune.operators.dtd import DTD
from tokenprune.operators.dycoke import DyCoke
from tokenprune.operators.evs import EVS
from tokenprune.operators.fastvid import FastVID
from tokenprune.operators.flashvid import FlashVID
from tokenprune.operators.floc import FLoC
from tokenprune.operators.gleanvid import GleanVID
from tokenprune.operators.holitom import HoliTom
from tokenprune.operators.infinipot import InfiniPotV
from tokenprune.operators.knorm import KNorm
from tokenprune.operators.press import ScoredPress
from tokenprune.operators.random import RandomSelect
from tokenprune.operators.snapkv import SnapKV
from tokenprune.operators.st_merge import STMerge
from tokenprune.operators.tome import ToMe
from tokenprune.operators.tova import TOVA
from tokenprune.operators.ttf import TTF
from tokenprune.operators.uniform import UniformSelect
from tokenprune.operators.vcast import VCast
from tokenprune.operators.vidcom2 import VidCom2
from tokenprune.operators.visionzip import VisionZip
from tokenprune.plan import TokenPlan
from tokenprune.scorers import SCORERS
from tokenprune.tokens import VisualTokens

PLAN = "STMerge: plan"
FRAME_PAIRS = "STMerge: clustering of the frames (T x T)"
MERGE = "STMerge: plan and apply"
DIRECT = "direct implementation"
BUDGET = 0.25
KEY_WIDTH = 80
"""Components of a key of Qwen2.5-VL's vision encoder."""

PRESSES: tuple[type[ScoredPress], ...] = (SnapKV, KNorm, TOVA, InfiniPotV)

METHODS: tuple[Any, ...] = (
    UniformSelect,
    RandomSelect,
    AveragePool,
    Cover,
    EVS,
    VidCom2,
    VCast,
    GleanVID,
    DyCoke,
    DTD,
    TTF,
    DivPrune,
    FLoC,
    CDPruner,
    ToMe,
    HoliTom,
    VisionZip,
    FastVID,
    FlashVID,
)
"""What decides before the LLM down to a budget."""

Run = Callable[[], Tensor]
"""What is timed."""


@dataclass(frozen=True)
class Subject:
    """One thing to measure.

    Args:
        ready: makes what one run is given, and the run; not timed. Plans and tokens are new each time, so that no run
            finds what another one left in them.
        keeps: whether what a run returns has one entry for each token kept.
    """

    ready: Callable[[], Run]
    keeps: bool = True


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip, and what is made from it once.

    Args:
        features: ``(T*H*W, D)`` in raster order.
        grid: ``(T, H, W)``.
        shape: of the attention layer that is scored.
    """

    features: Tensor
    grid: tuple[int, int, int]
    shape: AttentionShape

    def tokens(self) -> VisualTokens:
        """The clip's visual tokens, new each time."""
        return VisualTokens(self.features, self.grid)

    def watched_tokens(self) -> VisualTokens:
        """The same with the attention that the scorers read."""
        return VisualTokens(self.features, self.grid, signals={"attention": self.view})

    def signalled_tokens(self, needs: Sequence[str]) -> VisualTokens:
        """The same with made-up signals of the vision encoder or of a caller."""
        return VisualTokens(self.features, self.grid, signals={need: self._signals[need] for need in needs})

    @cached_property
    def _signals(self) -> dict[str, Tensor]:
        keys = self.features[:, :KEY_WIDTH]
        numbers = ("encoder_column", "encoder_pooled", "relevance")
        return {"encoder_keys": keys, **dict.fromkeys(numbers, self.scores)}

    @cached_property
    def plan(self) -> TokenPlan:
        """STMerge's, with its defaults."""
        return STMerge().plan(self.tokens())

    @cached_property
    def view(self) -> AttentionView:
        """What the scorers read."""
        return random_view(len(self.features), self.shape, device=self.features.device)

    @cached_property
    def scores(self) -> Tensor:
        """``(N,)`` random scores."""
        draw = torch.Generator("cpu").manual_seed(0)
        drawn = torch.rand(len(self.features), generator=draw, dtype=torch.float32, device="cpu")
        return drawn.to(self.features.device)

    @cached_property
    def frame_of(self) -> Tensor:
        """``(N,)`` frame of each token, the blocks of a stratified choice."""
        frames, height, width = self.grid
        return torch.arange(frames, device=self.features.device).repeat_interleave(height * width)

    @cached_property
    def frame_sums(self) -> Tensor:
        """``(T, D)`` fp32 sum of each frame's tokens."""
        frames = self.features.view(self.grid[0], -1, self.features.shape[1])
        return torch.stack([frame.float().sum(dim=0) for frame in frames])


def subjects_of(clip: Clip, *, direct: bool) -> dict[str, Subject]:
    """Name -> subject; ``direct``: with the direct implementation."""
    subjects = {PLAN: _merger(clip, STMerge()), MERGE: _merge(clip)}
    if clip.grid[0] > 1:  # a single frame is a segment without further ado
        subjects[FRAME_PAIRS] = _frame_pairs(clip)
    if direct:
        subjects[DIRECT] = Subject(lambda: lambda: direct_merge(clip.features, clip.grid[0])[1])
    subjects["TokenPlan: validate"] = _validate(clip)
    subjects["TokenPlan: apply"] = _apply(clip)
    subjects[f"STMerge(keep_ratio={BUDGET}): plan"] = _merger(clip, STMerge(keep_ratio=BUDGET))
    for method in METHODS:
        subjects[f"{method.__name__}(keep_ratio={BUDGET}): plan"] = _merger(clip, method(keep_ratio=BUDGET))
    for press in PRESSES:
        subjects[f"{press.__name__}(keep_ratio={BUDGET}): plan of one layer"] = _press(clip, press(keep_ratio=BUDGET))
    for name in SCORERS:
        subjects[f"scorer {name}"] = _scorer(clip, name)
    for select in ("global", "stratified"):
        subjects[f"AttnPrune(keep_ratio=0.4): choose, {select}"] = _selector(clip, select)
    return subjects


def _merger(clip: Clip, operator: TokenMerger) -> Subject:
    def ready() -> Run:
        tokens = clip.signalled_tokens(needs_of(operator))
        return lambda: operator.plan(tokens).anchors

    return Subject(ready)


def _press(clip: Clip, press: ScoredPress) -> Subject:
    def ready() -> Run:
        keys = clip.view.keys()  # a cache holds them as they are read
        view = replace(clip.view, read_keys=lambda rotated: keys)
        tokens = VisualTokens(clip.features, clip.grid, signals={"attention": view})

        def run() -> Tensor:
            plans = press.plan(tokens)
            return plans.anchors if isinstance(plans, TokenPlan) else plans[0].anchors

        return run

    return Subject(ready)


def _merge(clip: Clip) -> Subject:
    def ready() -> Run:
        tokens = clip.tokens()
        return lambda: STMerge().plan(tokens).apply(tokens).features

    return Subject(ready)


def _frame_pairs(clip: Clip) -> Subject:
    def ready() -> Run:
        operator, frames = STMerge(), where_fp64_is(clip.frame_sums)
        clusters = portion(len(frames), operator.temporal_segment_ratio)
        counts = torch.full((1,), clusters, dtype=torch.int64, device=frames.device)
        unit = torch.ones(1, dtype=torch.float64, device=frames.device)
        return lambda: dpc_knn(frames.double()[None], counts, unit, neighbours=operator.neighbours).centres

    return Subject(ready, keeps=False)


def _validate(clip: Clip) -> Subject:
    def ready() -> Run:
        plan = replace(clip.plan)
        return lambda: plan.validate().anchors

    return Subject(ready)


def _apply(clip: Clip) -> Subject:
    def ready() -> Run:
        plan, tokens = replace(clip.plan), clip.tokens()
        return lambda: plan.apply(tokens).features

    return Subject(ready)


def _scorer(clip: Clip, name: str) -> Subject:
    def ready() -> Run:
        tokens, scorer = clip.watched_tokens(), SCORERS[name]()
        return lambda: scorer.score(tokens)

    return Subject(ready, keeps=False)


def _selector(clip: Clip, select: str) -> Subject:
    def ready() -> Run:
        operator = AttnPrune(keep_ratio=0.4, select=select)
        scores, blocks = clip.scores, clip.frame_of
        return lambda: operator.choose(scores, blocks).anchors

    return Subject(ready)
