# SPDX-License-Identifier: Apache-2.0
"""STTM: quadtrees, and what of them meets in time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods.inside import LAYERS, agrees, agrees_on_all_layers, tokens_of
from oracles.methods.in_llm import INSIDE, VARIANTS

import tokenprune as tp
from tokenprune.tokens import TokenSpan


@pytest.mark.parametrize("more", [{}, {"root_level": 0, "tau_s": 0.4}], ids=str)
def test_it_is_the_reference(more: dict[str, Any]) -> None:
    agrees_on_all_layers(tp.STTM, INSIDE["STTM"], **more)


def test_the_form_before_the_llm_is_its_reference() -> None:
    agrees_on_all_layers(lambda **budget: tp.STTM(layer=None, **budget), VARIANTS["STTM"])


def test_the_means_of_all_tokens_are_its_reference() -> None:
    agrees_on_all_layers(
        lambda **budget: tp.STTM(weighted_avg=True, tau_s=0.4, root_level=0, **budget),
        lambda seen, **budget: INSIDE["STTM"](seen, weighted=True, tau_s=0.4, root_level=0, **budget),
    )


@pytest.mark.parametrize("tau_s", [-1.0, 0.3, 0.6, 0.85, 1.0])
@pytest.mark.parametrize("tau_t", [0.0, 0.5, 0.9])
def test_thresholds_are_the_reference(tau_s: float, tau_t: float) -> None:
    given = {"tau_s": tau_s, "tau_t": tau_t, "root_level": 0}
    held = [agrees(tp.STTM(**given), seen, INSIDE["STTM"](seen, **given)) for seen in LAYERS.values()]  # type: ignore[arg-type]
    assert sum(held) > 0.6 * len(held)


def test_a_node_stays_whole_where_its_children_are_alike() -> None:
    """A frame of 4 x 4 whose upper left quarter is of one kind; the root stands one level below the coarsest."""
    features = torch.eye(16)
    for row, column in ((0, 1), (1, 0), (1, 1)):
        features[4 * row + column] = features[0]
    plan = tp.STTM(root_level=0).plan(tp.VisualTokens(features, (1, 4, 4)))
    assert plan.anchors.tolist() == [0, 2, 3, 6, 7, *range(8, 16)]
    assert tp.STTM(root_level=9).plan(tp.VisualTokens(features, (1, 4, 4))).kept == 16


def test_a_merged_token_is_the_mean_of_nodes_or_of_tokens() -> None:
    """A still 3 x 3 whose cells hold 1, 2, 2 and 4 tokens; each cell is one node in the first frame and the second."""
    cells = torch.tensor([0, 1, 1, 2, 3, 3, 2, 3, 3])
    features = torch.cat([torch.eye(4)[cells], torch.eye(4)[cells] + 0.1])
    features[4] += 0.2
    tokens = tp.VisualTokens(features, (2, 3, 3))
    plain, weighted = (
        tp.STTM(root_level=0, tau_s=0.5, tau_t=0.5, weighted_avg=each).plan(tokens) for each in (False, True)
    )
    assert plain.anchors.tolist() == weighted.anchors.tolist() == [0, 1, 3, 4]
    mean = (features[[4, 5, 7, 8]].mean(0) + features[[13, 14, 16, 17]].mean(0)) / 2
    for plan in (plain, weighted):
        torch.testing.assert_close(plan.apply(tokens).features[3], mean)


def test_videos_do_not_meet() -> None:
    spans = (TokenSpan("video", (2, 1, 2), slice(0, 4)), TokenSpan("video", (1, 1, 2), slice(4, 6)))
    tokens = tp.VisualTokens(torch.ones(6, 3), (6, 1, 1), spans=spans)
    assert tp.STTM().plan(tokens).assign.tolist() == [0, 1, 0, 1, 2, 3]
    assert tp.STTM(keep=3).plan(tokens).assign.tolist() == [0, 1, 0, 1, 2, -1]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"keep": 3, "tau_t": 0.5}, tp.BudgetError),
        ({"keep": 3, "keep_ratio": 0.5}, tp.BudgetError),
        ({"tau_s": 1.5}, tp.InvalidValueError),
        ({"tau_t": "high"}, tp.InvalidValueError),
        ({"root_level": -1}, tp.InvalidValueError),
        ({"weighted_avg": 1}, tp.InvalidValueError),
        ({"layer": -1}, tp.InvalidValueError),
    ],
    ids=str,
)
def test_what_is_not_allowed_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        tp.STTM(**arguments)


def test_it_needs_the_whole_grid() -> None:
    tokens = tokens_of(LAYERS["random-43"], list(range(9)))
    with pytest.raises(tp.InvalidValueError, match="must come first"):
        tp.STTM().plan(tokens)
