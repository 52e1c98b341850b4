# SPDX-License-Identifier: Apache-2.0
"""FrameFusion: chains in time, and attention for what is too many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from methods.inside import LAYERS, agrees_on_all_layers, tokens_of
from oracles.methods.in_llm import INSIDE, VARIANTS

import tokenprune as tp
from tokenprune.tokens import TokenSpan


def test_it_is_the_reference() -> None:
    agrees_on_all_layers(tp.FrameFusion, INSIDE["FrameFusion"])


def test_the_form_before_the_llm_is_its_reference() -> None:
    agrees_on_all_layers(lambda **budget: tp.FrameFusion(layer=None, **budget), VARIANTS["FrameFusion"])


def test_a_run_is_the_mean_of_its_tokens_at_the_first() -> None:
    turned = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.3], [0.0, 1.0], [0.1, 1.0]])
    tokens = tp.VisualTokens(turned, (5, 1, 1))
    plan = tp.FrameFusion(layer=None, keep=2).plan(tokens)
    assert plan.assign.tolist() == [0, 0, 0, 1, 1]
    torch.testing.assert_close(plan.apply(tokens).features[0], turned[:3].mean(0))
    assert tp.FrameFusion(layer=None, keep=4).plan(tokens).assign.tolist() == [0, 0, 1, 2, 3]


def test_chains_stay_inside_a_video() -> None:
    """An image and two videos of one place each: nothing merges over their borders."""
    spans = (
        TokenSpan("image", (1, 1, 1), slice(0, 1)),
        TokenSpan("video", (2, 1, 1), slice(1, 3)),
        TokenSpan("video", (3, 1, 1), slice(3, 6)),
    )
    view = replace(tokens_of(LAYERS["random-46"]).signals["attention"], visual_columns=torch.arange(2, 8))
    tokens = tp.VisualTokens(torch.ones(6, 4), (6, 1, 1), signals={"attention": view}, spans=spans)
    assert tp.FrameFusion(keep=3).plan(tokens).assign.tolist() == [0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("bound", [1.5, -2, True, "high", float("nan")], ids=str)
def test_what_is_not_allowed_is_refused(bound: Any) -> None:
    with pytest.raises(tp.InvalidValueError, match="similarity_lower_bound"):
        tp.FrameFusion(keep=3, similarity_lower_bound=bound)
