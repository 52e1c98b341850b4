# SPDX-License-Identifier: Apache-2.0
"""A device that has no fp64 (Apple's): what needs it is computed on the CPU, and plans are the CPU's, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from following import WithoutFp64, following_with
from oracles.clips import structured_clip
from torch import Tensor

import tokenprune as tp
from tokenprune.bench.speed.scoring import AttentionShape, random_view
from tokenprune.device import where_fp64_is
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.operators.random import RandomSelect
from tokenprune.operators.st_merge import STMerge
from tokenprune.operators.uniform import UniformSelect
from tokenprune.plan import TokenPlan
from tokenprune.scorers import SCORERS
from tokenprune.testing import seen_by
from tokenprune.tokens import VisualTokens


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Any:
    return following_with(monkeypatch, WithoutFp64)


def clip(dtype: torch.dtype = torch.float32) -> VisualTokens:
    made = structured_clip((16, 6, 7), 24, 5, scenes=4, noise=0.5)
    draw = torch.Generator("cpu").manual_seed(3)
    shares = {name: torch.rand(len(made.features), generator=draw) for name in ("encoder_column", "encoder_pooled")}
    return VisualTokens(torch.from_numpy(made.features).to(dtype), made.grid, signals=shares)


def assert_same(one: TokenPlan, other: TokenPlan) -> None:
    assert torch.equal(one.anchors, other.anchors)
    assert torch.equal(one.assign, other.assign)
    assert (one.blocks is None) == (other.blocks is None)
    assert one.blocks is None or torch.equal(one.blocks, other.blocks)  # type: ignore[arg-type]
    assert one.segments == other.segments


def test_the_stand_in_has_no_fp64(there: Any) -> None:
    tensor = torch.ones(3)
    with there(tensor):
        assert torch.ones(3).double().sum() == 3  # on the CPU
        with pytest.raises(TypeError, match="fp64"):
            tensor.double()
        with pytest.raises(TypeError, match="fp64"):
            (tensor + 1).sum(dtype=torch.float64)
        assert where_fp64_is(tensor).double().sum() == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "operator",
    [
        STMerge(),
        STMerge(keep_ratio=0.2),
        tp.Cover(keep_ratio=0.2),
        tp.EVS(keep_ratio=0.2),
        tp.VidCom2(keep_ratio=0.2),
        tp.DivPrune(keep_ratio=0.2),
        tp.DyCoke(),
        tp.AveragePool(),
        STMerge(distance_scale="raw"),
        STMerge(temporal_segment_ratio=1.0),
        UniformSelect(keep=9),
        RandomSelect(keep=9),
        tp.DTD(keep=99),
        tp.TTF(),
        tp.VCast(keep=99),
        tp.GleanVID(keep=99),
        tp.ToMe(keep=99),
        tp.FLoC(keep=99),
        tp.HoliTom(keep=99),
        tp.FastVID(keep=99),
        tp.FlashVID(keep=99, alpha=0.3),
    ],
    ids=str,
)
def test_plans_are_the_cpus(there: Any, operator: Any, dtype: torch.dtype) -> None:
    tokens = clip(dtype)
    plain = operator.plan(tokens).validate()
    merged = plain.apply(tokens)
    with there(tokens.features, *tokens.signals.values()):
        plan = operator.plan(tokens)
    assert_same(plan, plain)
    with there(tokens.features, *tokens.signals.values(), plan.anchors, plan.assign):
        again = plan.validate().apply(tokens)
    assert torch.equal(again.features, merged.features)
    assert torch.equal(again.sizes, merged.sizes)


def test_weighted_plans(there: Any) -> None:
    anchors, assign = torch.tensor([0, 3]), torch.tensor([0, 0, -1, 1, 1, 0])
    weights, x = torch.tensor([1.0, 0.3, 2.0, 0.7, 0.1, 5.0]), torch.rand(6, 4, generator=torch.Generator())
    plan = TokenPlan(anchors, assign, weights)
    mixed, summed = plan.validate().mix(x), plan.sum(weights)
    given: tuple[Tensor, ...] = (anchors, assign, weights, x)
    with there(*given):
        assert torch.equal(plan.validate().mix(x), mixed)
        assert torch.equal(plan.sum(weights), summed)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_scores_and_choices(there: Any, name: str) -> None:
    view = random_view(40, AttentionShape(heads=4, kv_heads=2, head_dim=8, text_rows=5), device=torch.device("cpu"))
    tokens, blocks = seen_by(view), torch.arange(40) // 8
    for select in ("global", "stratified"):
        operator = AttnPrune(keep_ratio=0.4, scorer=name, select=select)
        plain = operator.choose(operator.scorer.score(tokens), blocks)
        with there(view.queries(), view.keys(), view.visual_columns, view.valid_keys, view.text_rows, blocks):
            plan = operator.choose(operator.scorer.score(tokens), blocks)
        assert_same(plan, plain)
