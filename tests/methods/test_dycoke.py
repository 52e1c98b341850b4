# SPDX-License-Identifier: Apache-2.0
"""DyCoke: one whole frame of four, and what is new in the others."""

from __future__ import annotations

import pytest
import torch
from methods.held import BUDGETS, agrees_on_all_clips, few

import tokenprune as tp


def test_it_is_the_reference() -> None:
    agrees_on_all_clips(tp.DyCoke, [{"k": 0.7}, {"k": 0.5}, {"k": 1.0}, {"k": 0.0}, *BUDGETS])


def counts(operator: tp.DyCoke, frames: int, length: int = 10) -> list[int]:
    tokens = tp.VisualTokens(torch.randn(frames * length, 4, generator=torch.Generator()), (frames, 1, length))
    return torch.bincount(operator.plan(tokens).anchors // length, minlength=frames).tolist()


def test_counts() -> None:
    assert counts(tp.DyCoke(), 9) == [10, 3, 3, 3, 10, 3, 3, 3, 10]
    assert counts(tp.DyCoke(k=0.9), 3) == [10, 1, 1]  # floor(10 * (1 - 0.9)) is 0 in floats
    assert counts(tp.DyCoke(keep=25), 5) == [10, 2, 2, 1, 10]
    assert counts(tp.DyCoke(keep=7), 5) == [4, 0, 0, 0, 3]
    assert counts(tp.DyCoke(keep=20), 5) == [10, 0, 0, 0, 10]


def test_what_each_frame_is_compared_with() -> None:
    # Second and third with the first, the fourth with the third.
    a, b = [1.0, 0.0], [0.0, 1.0]
    tokens = few(a, a, a, b, b, a, b, b, grid=(4, 1, 2))
    assert tp.DyCoke(k=0.5).plan(tokens).anchors.tolist() == [0, 1, 3, 4, 7]


def test_one_of_k_and_a_budget() -> None:
    assert tp.DyCoke().budget is None
    for arguments in ({"k": 0.7, "keep": 3}, {"keep": 3, "keep_ratio": 0.5}, {"keep_ratio": 0.0}):
        with pytest.raises(tp.BudgetError):
            tp.DyCoke(**arguments)
    with pytest.raises(tp.InvalidValueError, match="k must"):
        tp.DyCoke(k=1.5)
