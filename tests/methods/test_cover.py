# SPDX-License-Identifier: Apache-2.0
"""Cover: the definition to the letter on few tokens; exact budgets, memory and quality on many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from methods.held import BUDGETS, CLIPS, agrees, agrees_on_all_clips, few
from oracles.clips import structured_clip

import tokenprune as tp
from tokenprune import batching
from tokenprune.operators import cover


def in_order(plan: tp.TokenPlan) -> list[int]:
    assert plan.scores is not None
    return torch.argsort(plan.scores, descending=True, stable=True)[: plan.kept].tolist()


def many(frames: int = 24, seed: int = 3) -> tp.VisualTokens:
    clip = structured_clip((frames, 10, 12), 160, seed, scenes=4, noise=0.3)
    return tp.VisualTokens(torch.from_numpy(clip.features), clip.grid)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_it_is_the_reference(spread: float) -> None:
    agrees_on_all_clips(tp.Cover, spread=spread)


def test_scores_give_the_order_of_the_picks() -> None:
    for clip in CLIPS.values():
        for budget in BUDGETS:
            reference = agrees(tp.Cover(**budget), clip, **budget)
            plan = tp.Cover(**budget).plan(tp.VisualTokens(torch.from_numpy(clip.features), clip.grid))
            if reference is not None and plan.scores is not None:
                assert in_order(plan) == reference.order


def test_by_hand() -> None:
    # Mean 5: 0 and 10 are equally far, the lower index is first. Then 10; then 4 at 4 from 0; 7 goes to 10, 3 away.
    plan = tp.Cover(keep=3).plan(few([0.0], [4.0], [7.0], [10.0], [4.0]))
    assert plan.anchors.tolist() == [0, 1, 3]
    assert plan.assign.tolist() == [0, 1, 1, 2, 1]
    assert in_order(plan) == [0, 3, 1]
    assert plan.scores is not None
    assert plan.scores[1:].tolist() == pytest.approx([16.0, 9.0, 100.0, 0.0])
    assert float(plan.scores[0]) > 100.0


def test_a_smaller_budget_is_a_prefix() -> None:
    clip = CLIPS["drifting-41"]
    tokens = tp.VisualTokens(torch.from_numpy(clip.features), clip.grid)
    longest = in_order(tp.Cover(keep=60).plan(tokens))
    for keep in (1, 2, 7, 30, 59):
        assert in_order(tp.Cover(keep=keep).plan(tokens)) == longest[:keep]


@pytest.mark.parametrize("keep", [1, 5, 15, 40, 300, 1500, 2879])
def test_many_tokens_keep_an_exact_number(keep: int) -> None:
    tokens = many()
    assert len(tokens) > 2 * cover.BLOCK
    plan = tp.Cover(keep=keep).plan(tokens).validate()
    assert plan.kept == keep
    assert int(plan.assign.amin()) == 0
    assert torch.equal(plan.assign, tp.Cover(keep=keep).plan(tokens).assign)


def test_frames_of_which_blocks_cannot_be_equal() -> None:
    tokens = many(frames=23)
    for keep_ratio in (0.1, 0.9):
        plan = tp.Cover(keep_ratio=keep_ratio).plan(tokens).validate()
        assert plan.kept == tp.Budget(keep_ratio=keep_ratio).count(len(tokens))


def test_blocks_and_projection_cover_nearly_as_well_as_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = many()

    def radii(plan: tp.TokenPlan) -> np.ndarray:
        anchors = tokens.features[plan.anchors][plan.assign]
        return (tokens.features - anchors).norm(dim=1).numpy()

    fast = radii(tp.Cover(keep=900).plan(tokens))
    monkeypatch.setattr(cover, "BLOCK", len(tokens))
    exact = radii(tp.Cover(keep=900).plan(tokens))
    random = radii(nearest_to_random(tokens, 900))
    assert exact.max() <= fast.max() < 1.4 * exact.max() < random.max()
    assert fast.mean() < 1.1 * exact.mean()


def nearest_to_random(tokens: tp.VisualTokens, keep: int) -> tp.TokenPlan:
    anchors = tp.RandomSelect(keep=keep).plan(tokens).anchors
    return tp.TokenPlan(anchors, torch.cdist(tokens.features, tokens.features[anchors]).argmin(dim=1))


def test_a_table_and_single_rows_decide_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = many()
    plans = [tp.Cover(keep=keep).plan(tokens) for keep in (9, 300)]
    monkeypatch.setattr(batching, "DISTANCE_BYTES", 1000)
    for plan in plans:
        again = tp.Cover(keep=plan.kept).plan(tokens)
        assert torch.equal(again.anchors, plan.anchors)
        assert torch.equal(again.assign, plan.assign)


def test_equal_tokens_tie_in_blocks_too() -> None:
    still = many(frames=1).features.repeat(20, 1)
    plan = tp.Cover(keep=370).plan(tp.VisualTokens(still, (20, 10, 12)))
    assert plan.kept == 370
    assert plan.anchors[:120].tolist() == list(range(120))
    assert torch.equal(plan.assign, torch.arange(120).repeat(20).where(plan.assign < 120, plan.assign))
    assert bool((still[plan.anchors][plan.assign] == still).all())


def test_the_mass_of_a_pipeline_with_it_is_sizes() -> None:
    assert tp.Pipeline([tp.Cover(keep_ratio=0.1)]).mass == "sizes"
    assert tp.Pipeline([tp.Cover(keep_ratio=0.1)], mass=None).mass is None


def test_what_is_not_allowed_is_refused() -> None:
    for budget in ({}, {"keep": 1, "keep_ratio": 0.5}, {"keep": 0}):
        with pytest.raises(tp.BudgetError):
            tp.Cover(**budget)
    for spread in (-0.1, 1.1, "half"):
        with pytest.raises(tp.InvalidValueError, match="spread"):
            tp.Cover(keep=1, spread=spread)  # type: ignore[arg-type]
    with pytest.raises(tp.InvalidValueError, match="finite"):
        tp.Cover(keep=1).plan(few([0.0], [float("nan")]))
