# SPDX-License-Identifier: Apache-2.0
"""What the micro-benchmark of the operators runs on one clip."""

from __future__ import annotations

from dataclasses import replace

import torch

from tokenprune.bench.speed.direct import direct_merge
from tokenprune.bench.speed.operators_clip import Clip
from tokenprune.bench.speed.operators_methods import method_subjects
from tokenprune.bench.speed.operators_prefill import LAYER, DecoderLayer, prefill_subject
from tokenprune.bench.speed.subject import Run, Subject
from tokenprune.cluster import dpc_knn, portion
from tokenprune.device import where_fp64_is
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.operators.st_merge import STMerge
from tokenprune.scorers import SCORERS

PLAN = "STMerge: plan"
FRAME_PAIRS = "STMerge: clustering of the frames (T x T)"
MERGE = "STMerge: plan and apply"
DIRECT = "direct implementation"


def subjects_of(clip: Clip, *, direct: bool, layer: DecoderLayer | None = None) -> dict[str, Subject]:
    """Name -> subject; ``direct``: with the direct implementation; ``layer``: with this one of the decoder."""
    subjects = {PLAN: _plan(clip), MERGE: _merge(clip)}
    if clip.grid[0] > 1:  # a single frame is a segment without further ado
        subjects[FRAME_PAIRS] = _frame_pairs(clip)
    if direct:
        subjects[DIRECT] = Subject(lambda: lambda: direct_merge(clip.features, clip.grid[0])[1])
    subjects["TokenPlan: validate"] = _validate(clip)
    subjects["TokenPlan: apply"] = _apply(clip)
    subjects |= method_subjects(clip)
    for name in SCORERS:
        subjects[f"scorer {name}"] = _scorer(clip, name)
    for select in ("global", "stratified"):
        subjects[f"AttnPrune(keep_ratio=0.4): choose, {select}"] = _selector(clip, select)
    if layer is not None:
        subjects[LAYER] = prefill_subject(clip, layer)
    return subjects


def _plan(clip: Clip) -> Subject:
    def ready() -> Run:
        tokens = clip.tokens()
        return lambda: STMerge().plan(tokens).anchors

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
        tokens, scorer = clip.tokens(("attention",)), SCORERS[name]()
        return lambda: scorer.score(tokens)

    return Subject(ready, keeps=False)


def _selector(clip: Clip, select: str) -> Subject:
    def ready() -> Run:
        operator = AttnPrune(keep_ratio=0.4, select=select)
        scores, blocks = clip.scores, clip.frame_of
        return lambda: operator.choose(scores, blocks).anchors

    return Subject(ready)
