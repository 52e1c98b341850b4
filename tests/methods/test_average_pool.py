# SPDX-License-Identifier: Apache-2.0
"""Average pooling: cells of the grid, whole or not."""

from __future__ import annotations

import pytest
import torch
from methods.held import agrees_on_all_clips, few

import tokenprune as tp


def test_it_is_the_reference() -> None:
    agrees_on_all_clips(tp.AveragePool, [{}, {"window": (2, 3, 1)}, {"window": (3, 2, 2)}, {"window": (9, 9, 9)}])


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


@pytest.mark.parametrize("window", [(1, 2), (0, 1, 1), (1, 2, True), 2, "abc"])
def test_a_window_that_is_not_allowed_is_refused(window: object) -> None:
    with pytest.raises(tp.InvalidValueError, match="window must be three integers"):
        tp.AveragePool(window=window)  # type: ignore[arg-type]
