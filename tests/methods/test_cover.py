# SPDX-License-Identifier: Apache-2.0
"""Cover: the definition to the letter on few tokens; exact budgets, memory and quality on many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from methods.held import BUDGETS, CLIPS, agrees, agrees_on_all_clips, few
from oracles.clips import Clip, structured_clip

import tokenprune as tp
from tokenprune import batching
from tokenprune.operators import cover_order
from tokenprune.operators.outliers import outliers


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
    assert len(tokens) > 2 * cover_order.BLOCK
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
    monkeypatch.setattr(cover_order, "BLOCK", len(tokens))
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


def events(noisy: int, seed: int = 0, frames: int = 8, dim: int = 96) -> tuple[tp.VisualTokens, list[int], list[int]]:
    """A still video of 36 places a frame in which things happen that differ along five directions, and noise.

    Returns:
        The tokens; which of them show something; which are outliers: of a random direction, twice as far from the
        mean as the root of the mean square.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    still = (normal(36, 6) @ normal(6, dim) / 3).repeat(frames, 1)
    still += 0.2 * normal(36 * frames, 6) @ normal(6, dim)
    places = torch.randperm(len(still), generator=generator)
    shows, alone = places[: 2 * frames].sort().values, places[2 * frames : 2 * frames + noisy].sort().values
    still[shows] += normal(2 * frames, 5) @ normal(5, dim)
    spread = (still - still.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    noise = normal(noisy, dim)
    still[alone] += 2 * spread * noise / noise.norm(dim=1, keepdim=True)
    return tp.VisualTokens(still, (frames, 6, 6)), shows.tolist(), alone.tolist()


def kept_of(tokens: tp.VisualTokens, keep: int, share: float) -> set[int]:
    return set(tp.Cover(keep=keep, outliers=share).plan(tokens).anchors.tolist())


class TestOutliers:
    @pytest.mark.parametrize("seed", range(4))
    def test_they_do_not_eat_the_budget(self, seed: int) -> None:
        tokens, shows, alone = events(noisy=14, seed=seed)
        kept = {share: kept_of(tokens, 20, share) for share in (0.1, 1.0)}
        assert len(kept[0.1] & set(alone)) <= 5 < 9 <= len(kept[1.0] & set(alone))
        assert len(kept[0.1] & set(shows)) >= len(kept[1.0] & set(shows)) + 4

    @pytest.mark.parametrize("seed", range(4))
    def test_without_them_nothing_changes(self, seed: int) -> None:
        tokens, _, _ = events(noisy=0, seed=seed)
        for keep in (1, 14, 29, 144, 287):
            robust, exact = (tp.Cover(keep=keep, outliers=share).plan(tokens) for share in (0.1, 1.0))
            for part in ("anchors", "assign", "scores"):
                assert torch.equal(getattr(robust, part), getattr(exact, part))

    def test_a_few_are_what_there_is_to_see(self) -> None:
        tokens, _, alone = events(noisy=4)
        for keep in (4, 14, 29):
            robust, exact = (tp.Cover(keep=keep, outliers=share).plan(tokens) for share in (0.1, 1.0))
            assert torch.equal(robust.anchors, exact.anchors)
        assert set(alone) <= set(robust.anchors.tolist())

    @pytest.mark.parametrize("dim", [1, 8, 128, 400, 2000])
    def test_where_all_are_alike_none_is(self, dim: int) -> None:
        x = torch.randn(1, 300, dim, generator=torch.Generator().manual_seed(dim))
        assert not outliers(x, torch.ones(1, 300, dtype=torch.bool)).any()

    def test_a_smaller_budget_is_still_a_prefix(self) -> None:
        tokens, _, _ = events(noisy=14)
        longest = in_order(tp.Cover(keep=200).plan(tokens))
        for keep in (1, 5, 14, 29, 199):
            assert in_order(tp.Cover(keep=keep).plan(tokens)) == longest[:keep]

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
    def test_it_is_the_reference(self, share: float) -> None:
        held: list[bool] = []
        for noisy, seed in ((8, 0), (6, 1), (2, 2), (0, 3)):
            tokens, _, _ = events(noisy, seed, frames=2, dim=40)
            clip = Clip("events", tokens.features.numpy(), tokens.grid)
            for arguments in ({"keep": 6}, {"keep": 12}, {"keep": 30}, {"keep": 12, "spread": 0.3}):
                arguments = {**arguments, "outliers": share}
                held.append(agrees(tp.Cover(**arguments), clip, **arguments) is not None)
        assert sum(held) >= 8

    def test_of_many_tokens_they_are_told_in_groups_of_frames(self) -> None:
        parts = [events(noisy=14, seed=seed) for seed in range(5)]
        tokens = tp.VisualTokens(torch.cat([tokens.features for tokens, _, _ in parts]), (40, 6, 6))
        alone = {i + 288 * n for n, (_, _, found) in enumerate(parts) for i in found}
        assert len(tokens) > cover_order.BLOCK
        kept = {share: kept_of(tokens, 72, share) & alone for share in (0.1, 1.0)}
        assert len(kept[0.1]) < 25 < 35 < len(kept[1.0])

    def test_padding_is_nothing(self) -> None:
        tokens, _, alone = events(noisy=14)
        x, real = tokens.features[None], torch.ones(1, 288, dtype=torch.bool)
        padded = torch.nn.functional.pad(x, (0, 0, 0, 7), value=99.0)
        found = outliers(padded.repeat(2, 1, 1), torch.nn.functional.pad(real, (0, 7)).repeat(2, 1))
        assert not found[:, 288:].any()
        assert torch.equal(found[:, :288], outliers(x, real).repeat(2, 1))
        assert set(found[0].nonzero().flatten().tolist()) <= set(alone)
        assert int(found.sum()) >= 2 * 10


def test_the_mass_of_a_pipeline_with_it_is_sizes() -> None:
    assert tp.Pipeline([tp.Cover(keep_ratio=0.1)]).mass == "sizes"
    assert tp.Pipeline([tp.Cover(keep_ratio=0.1)], mass=None).mass is None


def test_what_is_not_allowed_is_refused() -> None:
    for budget in ({}, {"keep": 1, "keep_ratio": 0.5}, {"keep": 0}):
        with pytest.raises(tp.BudgetError):
            tp.Cover(**budget)
    for share in (-0.1, 1.1, "half"):
        for name in ("spread", "outliers"):
            with pytest.raises(tp.InvalidValueError, match=name):
                tp.Cover(keep=1, **{name: share})
    with pytest.raises(tp.InvalidValueError, match="finite"):
        tp.Cover(keep=1).plan(few([0.0], [float("nan")]))
