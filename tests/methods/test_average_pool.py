# SPDX-License-Identifier: Apache-2.0
"""Average pooling: cells of the grid, whole or not."""

from __future__ import annotations

import pytest
import torch
from methods.held import agrees_on_all_clips, few

import tokenprune as tp


def test_it_is_the_reference() -> None:
    agrees_on_all_clips(tp.AveragePool, [{}, {"window": (2, 3, 1)}, {"window": (3, 2, 2)}, {"window": (9, 9, 9)}])
    agrees_on_all_clips(tp.AveragePool)


def test_cells_that_stick_out_hold_what_is_inside() -> None:
    tokens = few(*([float(i)] for i in range(9)), grid=(1, 3, 3))
    plan = tp.AveragePool().plan(tokens)
    assert plan.anchors.tolist() == [0, 2, 6, 8]
    assert plan.apply(tokens).features.flatten().tolist() == [2.0, 3.5, 6.5, 8.0]


def test_a_window_of_one_is_the_identity() -> None:
    tokens = few(*([float(i)] for i in range(9)), grid=(1, 3, 3))
    plan = tp.AveragePool(window=(4, 1, 1)).plan(tokens)
    assert plan.is_identity
    assert not plan.mixes
    assert torch.equal(plan.apply(tokens).features, tokens.features)


def test_a_budget_halves_the_longest_side_again_and_again() -> None:
    tokens = few(*([float(i)] for i in range(12)), grid=(1, 3, 4))
    # 4 columns into 2 and 2, 3 cells for the left; there 3 rows into 2 and 1, and the upper two into one each.
    plan = tp.AveragePool(keep=5).plan(tokens)
    assert plan.anchors.tolist() == [0, 2, 4, 8, 10]
    assert plan.apply(tokens).features.flatten().tolist() == [0.5, 4.5, 4.5, 8.5, 10.5]


def test_cells_of_a_budget_are_boxes_that_fill_the_grid() -> None:
    tokens = few(*([float(i)] for i in range(60)), grid=(5, 3, 4))
    for keep in range(1, 61):
        plan = tp.AveragePool(keep=keep).plan(tokens).validate()
        assert plan.kept == keep
        for place in range(keep):
            members = (plan.assign == place).nonzero().squeeze(1)
            sides = [len(set((members // step % size).tolist())) for step, size in ((12, 5), (4, 3), (1, 4))]
            assert sides[0] * sides[1] * sides[2] == len(members)


def test_a_window_and_a_budget_are_refused() -> None:
    with pytest.raises(tp.BudgetError, match="not both"):
        tp.AveragePool(window=(1, 2, 2), keep=3)
    with pytest.raises(tp.BudgetError, match="exactly one"):
        tp.AveragePool(keep_ratio=0.5, keep=3)


@pytest.mark.parametrize("window", [(1, 2), (0, 1, 1), (1, 2, True), 2, "abc"])
def test_a_window_that_is_not_allowed_is_refused(window: object) -> None:
    with pytest.raises(tp.InvalidValueError, match="window must be three integers"):
        tp.AveragePool(window=window)  # type: ignore[arg-type]
