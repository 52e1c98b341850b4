# SPDX-License-Identifier: Apache-2.0
"""What holds for the slow reference of every method inside the LLM and on its cache: exact budgets, lawful plans."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from .methods import ReferencePlan, pyramiddrop
from .methods.in_llm import INSIDE, PRESSES, VARIANTS
from .seen import Seen, method_layers

LAYERS = {seen.name: seen for seen in method_layers()}
DROPS = {"FastV", "FlashVIDInner", "V2Drop", "DART", "DART of features"}
NOT_MEANS = {"HoliTomInner", "STTM", "STTM of features"}  # merge with weights of their own


def budgets(n: int) -> list[tuple[Mapping[str, float], int]]:
    """Budgets and what they come to; the ratios are hundredths, so that whole numbers say what the decimal says."""
    counts = [({"keep": 1}, 1), ({"keep": max(1, n - 1)}, max(1, n - 1)), ({"keep": n + 5}, n)]
    return [
        *counts,
        *(({"keep_ratio": hundredths / 100}, -(-hundredths * n // 100)) for hundredths in (10, 29, 60, 100)),
    ]


PLANS = {**INSIDE, **{f"{method} of features": reference for method, reference in VARIANTS.items()}}
ALL = {**PLANS, **PRESSES}


def check_laws(method: str, seen: Seen, plan: ReferencePlan) -> None:
    n = len(seen.features)
    assert plan.anchors == sorted(set(plan.anchors))
    assert 0 <= plan.anchors[0] <= plan.anchors[-1] < n
    assert len(plan.assign) == n
    assert all(-1 <= place < len(plan.anchors) for place in plan.assign)
    assert [plan.assign[anchor] for anchor in plan.anchors] == list(range(len(plan.anchors)))
    assert plan.merged.shape == (len(plan.anchors), seen.features.shape[1])
    assert np.isfinite(plan.merged).all()
    values = seen.features.astype(np.float64)
    if method in DROPS:
        assert sum(place >= 0 for place in plan.assign) == len(plan.anchors)
    if method not in NOT_MEANS:
        for place, row in enumerate(plan.merged):
            members = [i for i, own in enumerate(plan.assign) if own == place]
            np.testing.assert_allclose(row, values[members].mean(axis=0), rtol=1e-12, atol=1e-12)
    if plan.scores is not None:
        assert plan.scores.shape == (n,)
    if plan.order is not None:
        assert sorted(plan.order) == plan.anchors


@pytest.mark.parametrize("seen", LAYERS.values(), ids=lambda seen: seen.name)
@pytest.mark.parametrize("method", sorted(PLANS))
def test_budgets_are_exact_and_the_laws_of_a_plan_hold(method: str, seen: Seen) -> None:
    for budget, expected in budgets(len(seen.features)):
        plan = PLANS[method](seen, **budget)
        assert len(plan.anchors) == expected, budget
        check_laws(method, seen, plan)
        if expected == len(seen.features):
            np.testing.assert_array_equal(plan.merged, seen.features)


@pytest.mark.parametrize("seen", LAYERS.values(), ids=lambda seen: seen.name)
@pytest.mark.parametrize("method", sorted(PRESSES))
def test_every_head_keeps_what_the_budget_says(method: str, seen: Seen) -> None:
    for budget, expected in budgets(len(seen.features)):
        plan = PRESSES[method](seen, **budget)
        assert len(plan.kept) in (1, len(seen.keys))
        for head, kept in enumerate(plan.kept):
            assert kept == sorted(set(kept))
            assert len(kept) == expected
            assert 0 <= kept[0] <= kept[-1] < len(seen.features)
            if plan.forced is not None:
                assert set(plan.forced[head]) <= set(kept)


@pytest.mark.parametrize("method", sorted(ALL))
def test_one_of_keep_and_keep_ratio_is_needed_and_not_both(method: str) -> None:
    reference = ALL[method]
    with pytest.raises(ValueError, match="one of keep_ratio and keep"):
        reference(LAYERS["drifting-41"], keep=3, keep_ratio=0.5)


@pytest.mark.parametrize("method", sorted(ALL))
def test_the_margin_tells_close_calls_from_ties(method: str) -> None:
    reference = ALL[method]
    assert 1e-9 < reference(LAYERS["random-43"], keep=25).margin < 1
    # Of equal tokens only ties and clear cases are left, whatever rounding made of their cosines.
    assert reference(LAYERS["all-equal-small"], keep=5).margin > 1e-4


def test_made_up_rows_are_probabilities_over_all_that_a_row_sees() -> None:
    seen = LAYERS["drifting-41"]
    rows = seen.rows("text")
    assert rows.shape == (4, 6, 96)
    assert (rows > 0).all()
    assert (rows.sum(axis=2) < 1).all()
    np.testing.assert_array_equal(seen.rows("last"), rows[:, -1:])
    np.testing.assert_array_equal(seen.rows(4), rows[:, -4:])
    np.testing.assert_array_equal(seen.rows(64), rows)
    # Query head 3 is served by key head 1; the fourth row sees three of the text tokens before it and itself.
    logits = seen.keys[1].astype(np.float64)[: seen.text_rows[3] + 1] @ seen.queries[3, 3].astype(np.float64) / 2
    np.testing.assert_allclose(rows[3, 3], (np.exp(logits) / np.exp(logits).sum())[seen.visual_columns], rtol=1e-12)


def test_equal_tokens_are_equal_in_all_that_is_made_up() -> None:
    seen = LAYERS["all-equal-small"]
    for values in (
        seen.before,
        seen.embeddings,
        *seen.visual_keys,
        *seen.visual_values,
        *np.swapaxes(seen.rows("text"), 1, 2),
    ):
        np.testing.assert_array_equal(values, np.broadcast_to(values[:1], values.shape))


def test_what_is_left_is_attended_to_without_the_rest() -> None:
    seen = LAYERS["drifting-41"]
    there = [0, 5, 40, 41, 95]
    left = seen.left(there)
    np.testing.assert_array_equal(left.visual_keys, seen.visual_keys[:, there])
    np.testing.assert_array_equal(left.visual_values, seen.visual_values[:, there])
    np.testing.assert_array_equal(left.text_keys, seen.text_keys)
    rows = seen.rows("text")
    gone = 1 - np.delete(rows, there, axis=2).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(left.rows("text"), rows[..., there] / gone, rtol=1e-12)
    assert np.abs(seen.next_layer().rows("last") - seen.rows("last")).max() > 1e-3


def test_pyramiddrop_on_a_made_up_row_leaves_what_its_ratios_say() -> None:
    seen = LAYERS["areas-48"]
    result = pyramiddrop.reference(seen.features, lambda _, there: seen.left(there).next_layer().rows("last"))
    assert [len(kept) for kept in result.kept] == [84, 42, 21]
    assert result.kept[2] == [i for i in result.kept[1] if i in result.kept[2]]
