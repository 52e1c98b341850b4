# SPDX-License-Identifier: Apache-2.0
"""The baselines before the LLM: exact counts, evenly spaced or by chance."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenprune.budget import Budget
from tokenprune.errors import BudgetError, InvalidValueError
from tokenprune.operator import TokenMerger
from tokenprune.operators.random import RandomSelect
from tokenprune.operators.st_merge import STMerge
from tokenprune.operators.uniform import UniformSelect
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

BASELINES = [UniformSelect, RandomSelect]


def some_tokens(total: int) -> VisualTokens:
    return VisualTokens(torch.arange(2.0 * total).reshape(total, 2), (total, 1, 1))


@pytest.mark.parametrize("baseline", BASELINES)
@given(total=st.integers(1, 400), keep_ratio=st.decimals("0.001", "1", places=3).map(float))
def test_the_count_is_exact_and_nothing_is_merged(baseline: type, total: int, keep_ratio: float) -> None:
    plan = baseline(keep_ratio=keep_ratio).plan(some_tokens(total)).validate()
    assert plan.kept == Budget(keep_ratio=keep_ratio).count(total)
    assert int((plan.assign >= 0).sum()) == plan.kept


@given(total=st.integers(1, 400), data=st.data())
def test_uniform_indices_are_evenly_spaced(total: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, total))
    anchors = UniformSelect(keep=keep).plan(some_tokens(total)).anchors.tolist()
    assert anchors == [i * total // keep for i in range(keep)]
    gaps = {after - before for before, after in itertools.pairwise(anchors)}
    assert gaps <= {total // keep, -(-total // keep)}


def test_random_depends_on_seed_and_length_only() -> None:
    def chosen(keep: int, seed: int) -> list[int]:
        return RandomSelect(keep=keep, seed=seed).plan(some_tokens(50)).anchors.tolist()

    state = torch.get_rng_state()
    assert chosen(20, 0) == chosen(20, 0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert chosen(20, 0) == chosen(20, 0)
    assert chosen(20, 0) != chosen(20, 1)
    assert set(chosen(10, 4)) < set(chosen(20, 4))
    with torch.device("meta"):
        meta_default = RandomSelect(keep=20).plan(VisualTokens(torch.ones(50, 1, device="cpu"), (50, 1, 1), *cpu(50)))
    assert meta_default.anchors.tolist() == chosen(20, 0)


def cpu(total: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ones = torch.ones(total, dtype=torch.int64, device="cpu")
    index = torch.arange(total, device="cpu")
    return ones, index, index


def test_random_subsets_reach_every_token() -> None:
    reached = {a for seed in range(60) for a in RandomSelect(keep=5, seed=seed).plan(some_tokens(20)).anchors.tolist()}
    assert reached == set(range(20))


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_budget_of_everything_is_the_identity(baseline: type) -> None:
    for budget in ({"keep_ratio": 1.0}, {"keep": 9}, {"keep": 100}):
        plan: TokenPlan = baseline(**budget).plan(some_tokens(9))
        assert torch.equal(plan.anchors, torch.arange(9))
        assert torch.equal(plan.assign, torch.arange(9))


@pytest.mark.parametrize("baseline", BASELINES)
def test_it_may_follow_a_merger(baseline: type) -> None:
    features = torch.randn(128, 6, generator=torch.Generator().manual_seed(0))
    merged_tokens = VisualTokens(features, (8, 4, 4))
    merged_tokens = STMerge(keep=40).plan(merged_tokens).apply(merged_tokens)
    plan = baseline(keep_ratio=0.5).plan(merged_tokens).validate()
    left = plan.apply(merged_tokens)
    assert len(left) == 20
    assert torch.equal(left.features, merged_tokens.features[plan.anchors])
    assert left.blocks is not None
    assert merged_tokens.blocks is not None
    assert torch.equal(left.blocks, merged_tokens.blocks[plan.anchors])


@pytest.mark.parametrize("baseline", BASELINES)
def test_it_is_a_merger_with_exactly_one_budget(baseline: type) -> None:
    assert isinstance(baseline(keep=1), TokenMerger)
    assert not getattr(baseline, "needs_full_grid", False)
    for budget in ({}, {"keep": 1, "keep_ratio": 0.5}, {"keep": 0}, {"keep_ratio": 0.0}, {"keep": True}):
        with pytest.raises(BudgetError):
            baseline(**budget)


@pytest.mark.parametrize("seed", [-1, 1.0, True, None, 2**63])
def test_a_seed_that_is_not_allowed_is_refused(seed: object) -> None:
    with pytest.raises(InvalidValueError, match="seed must be an integer"):
        RandomSelect(keep=1, seed=seed)  # type: ignore[arg-type]
