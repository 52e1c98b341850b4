# SPDX-License-Identifier: Apache-2.0
"""How often the operators make the host wait for the device."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from following import following_with
from oracles.clips import structured_clip

from tokenprune.bench.speed.scoring import AttentionShape, random_view
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.operators.st_merge import STMerge
from tokenprune.scorers import SCORERS
from tokenprune.testing import seen_by
from tokenprune.tokens import VisualTokens


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Any:
    return following_with(monkeypatch)


def clip() -> VisualTokens:
    made = structured_clip((16, 6, 7), 24, 5, scenes=4, noise=0.5)
    return VisualTokens(torch.from_numpy(made.features), made.grid)


@pytest.mark.parametrize("operator", [STMerge(), STMerge(keep_ratio=0.2)], ids=["content", "budget"])
def test_stage_1_waits_for_the_segments_and_for_what_is_static(followed: Any, operator: STMerge) -> None:
    tokens = clip()
    with followed(tokens.features) as waits:
        plan = operator.plan(tokens)
    assert waits == ["tolist", "cpu"]
    assert 0 < plan.kept < len(tokens)


def test_a_plan_is_checked_with_one_wait_and_applied_with_none(followed: Any) -> None:
    tokens = clip()
    plan = STMerge().plan(tokens)
    with followed(tokens.features, plan.anchors, plan.assign) as waits:
        plan.validate()
        assert waits == ["_local_scalar_dense"]
        merged = plan.apply(tokens)
        picked = plan.pick(tokens.features)
        assert waits == ["_local_scalar_dense"]
    assert len(merged) == len(picked) == plan.kept


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_scores_are_computed_without_waiting(followed: Any, name: str) -> None:
    view = random_view(40, AttentionShape(heads=4, kv_heads=2, head_dim=8, text_rows=5), device=torch.device("cpu"))
    tokens = seen_by(view)
    with followed(view.queries(), view.keys(), view.visual_columns, view.valid_keys, view.text_rows) as waits:
        assert len(SCORERS[name]().score(tokens)) == 40
    assert waits == []


def test_choosing_waits_to_refuse_what_is_no_number(followed: Any) -> None:
    scores, blocks = torch.rand(50, generator=torch.Generator().manual_seed(0)), torch.zeros(50, dtype=torch.int64)
    with followed(scores, blocks) as waits:
        plan = AttnPrune(keep_ratio=0.4).choose(scores, blocks)
    assert waits == ["_local_scalar_dense"]
    assert plan.kept == 20


def test_a_wait_is_noticed(followed: Any) -> None:
    tensor = torch.arange(6)
    with followed(tensor) as waits:
        _ = int((tensor * 2).sum()), (tensor > 3).nonzero(), tensor[tensor > 2], tensor.add(1).tolist(), tensor.cpu()
        _ = int(torch.arange(3).sum())  # never was on the device
    assert waits == ["_local_scalar_dense", "nonzero", "index", "tolist", "cpu"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_counts_the_same_waits() -> None:
    made = clip()
    tokens = VisualTokens(made.features.cuda(), made.grid)
    STMerge().plan(tokens)  # what is set up on first use does not count
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            plan = STMerge().plan(tokens)
            planned = len(seen)
            plan.validate()
            validated = len(seen)
            plan.apply(tokens)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert (planned, validated, len(seen)) == (2, 3, 3)
