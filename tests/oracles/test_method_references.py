# SPDX-License-Identifier: Apache-2.0
"""What holds for the slow reference of every method: exact budgets, the laws of a plan, no say for order or scale."""

from __future__ import annotations

import numpy as np
import pytest

from .clips import Clip, method_clips, signals_of
from .methods import REFERENCES, ReferencePlan

CLIPS = {clip.name: clip for clip in method_clips()}
WITH_BUDGET = sorted(REFERENCES)
WITHOUT_BUDGET = ["AveragePool", "DTD", "DyCoke", "TTF"]
DROPS = {"EVS", "VidCom2", "VCast", "GleanVID", "DyCoke", "DTD", "TTF", "DivPrune", "FLoC", "CDPruner"}
NOT_MEANS = {"HoliTom", "FastVID"}  # merge with weights of their own
BUDGETS = [{"keep": 1}, {"keep_ratio": 0.1}, {"keep_ratio": 0.29}, {"keep_ratio": 0.6}, {"keep_ratio": 1.0}]


def run(method: str, clip: Clip, **arguments: object) -> ReferencePlan:
    return REFERENCES[method](clip.features, clip.grid, signals=signals_of(clip), **arguments)


def check_laws(method: str, clip: Clip, plan: ReferencePlan) -> None:
    n = len(clip.features)
    assert plan.anchors == sorted(set(plan.anchors))
    assert plan.anchors
    assert 0 <= plan.anchors[0] <= plan.anchors[-1] < n
    assert len(plan.assign) == n
    assert all(-1 <= place < len(plan.anchors) for place in plan.assign)
    assert [plan.assign[anchor] for anchor in plan.anchors] == list(range(len(plan.anchors)))
    assert plan.merged.shape == (len(plan.anchors), clip.features.shape[1])
    assert np.isfinite(plan.merged).all()
    values = clip.features.astype(np.float64)
    if method in DROPS:
        assert sum(place >= 0 for place in plan.assign) == len(plan.anchors)
        np.testing.assert_array_equal(plan.merged, values[plan.anchors])
    elif method not in NOT_MEANS:
        for place, row in enumerate(plan.merged):
            members = [i for i, own in enumerate(plan.assign) if own == place]
            np.testing.assert_allclose(row, values[members].mean(axis=0), rtol=1e-12, atol=1e-12)
    if plan.mixing is not None:
        np.testing.assert_allclose(plan.mixing.sum(axis=1), 1.0, rtol=1e-12)
        np.testing.assert_allclose(plan.merged, plan.mixing @ values, rtol=1e-12, atol=1e-12)
    if plan.scores is not None:
        assert plan.scores.shape == (n,)
    if plan.order is not None:
        assert sorted(plan.order) == plan.anchors
    if plan.shares is not None:
        assert sum(plan.shares) == len(plan.anchors)


@pytest.mark.parametrize("clip", CLIPS.values(), ids=lambda clip: clip.name)
@pytest.mark.parametrize("method", WITH_BUDGET)
def test_budgets_are_exact_and_the_laws_of_a_plan_hold(method: str, clip: Clip) -> None:
    n = len(clip.features)
    for budget in [*BUDGETS, {"keep": max(1, n - 1)}, {"keep": n + 5}]:
        plan = run(method, clip, **budget)
        ratio = budget.get("keep_ratio")
        # The ratios of BUDGETS are hundredths, so that whole numbers say what the decimal says.
        expected = budget.get("keep", 0) if ratio is None else -(-round(100 * ratio) * n // 100)
        assert len(plan.anchors) == max(1, min(n, expected)), budget
        check_laws(method, clip, plan)
        if len(plan.anchors) == n:
            assert plan.assign == list(range(n))
            np.testing.assert_array_equal(plan.merged, clip.features)


@pytest.mark.parametrize("clip", CLIPS.values(), ids=lambda clip: clip.name)
@pytest.mark.parametrize("method", WITHOUT_BUDGET)
def test_the_laws_of_a_plan_hold_where_the_content_decides(method: str, clip: Clip) -> None:
    check_laws(method, clip, run(method, clip))


@pytest.mark.parametrize("method", WITH_BUDGET)
def test_one_of_keep_and_keep_ratio_is_needed_and_not_both(method: str) -> None:
    clip = CLIPS["drifting-41"]
    with pytest.raises(ValueError, match="one of keep_ratio and keep"):
        run(method, clip, keep=3, keep_ratio=0.5)
    if method not in WITHOUT_BUDGET:
        with pytest.raises(ValueError, match="one of keep_ratio and keep"):
            run(method, clip)


@pytest.mark.parametrize("method", sorted(REFERENCES))
def test_neither_the_order_of_channels_nor_a_global_power_of_two_changes_a_plan(method: str) -> None:
    clip = CLIPS["drifting-41"]
    budget = {"keep": 17}
    plan = run(method, clip, **budget)
    signals = signals_of(clip)
    changed = [clip.features[:, ::-1].copy()]
    # Gaussians, densities and V-CAST's 1e-6 know a length.
    if method not in {"VidCom2", "VCast", "HoliTom", "FastVID", "FlashVID"}:
        changed.append(4 * clip.features)
    for features in changed:
        if method == "CDPruner":
            signals = {"relevance": signals["relevance"]}
        again = REFERENCES[method](features, clip.grid, signals=signals, **budget)
        assert again.anchors == plan.anchors
        assert again.assign == plan.assign


@pytest.mark.parametrize("method", sorted(set(REFERENCES) - {"AveragePool"}))  # which reads no feature
def test_the_margin_tells_close_calls_from_ties(method: str) -> None:
    plan = run(method, CLIPS["random-43"], keep=25)
    assert 1e-9 < plan.margin < 1
    # Of equal tokens only ties and clear cases are left, whatever rounding made of their cosines.
    assert run(method, CLIPS["all-equal-small"], keep=5).margin > 1e-4
