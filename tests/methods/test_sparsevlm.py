# SPDX-License-Identifier: Apache-2.0
"""SparseVLM: raters, their attention, and what is recycled of the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from methods.inside import LAYERS, agrees_on_all_layers, tokens_of
from oracles.methods import ReferencePlan, sparsevlm
from oracles.seen import Seen

import tokenprune as tp
from tokenprune.operators.sparsevlm import SparseVLMStage, raters_of


def reference(seen: Seen, **budget: Any) -> ReferencePlan:
    return sparsevlm.reference(seen.features, seen.rows("text"), seen.embeddings, seen.text, **budget)


def test_a_stage_is_the_reference() -> None:
    agrees_on_all_layers(SparseVLMStage, reference)


def test_raters_are_the_reference() -> None:
    for seen in LAYERS.values():
        assert raters_of(tokens_of(seen)).tolist() == sparsevlm.raters(seen.embeddings, seen.text)


def test_without_recycling_it_is_a_ranking() -> None:
    tokens = tokens_of(LAYERS["random-43"])
    plan = SparseVLMStage(keep=7, tau=0.0).plan(tokens)
    assert not plan.apply(tokens).sizes.gt(1).any()  # type: ignore[union-attr]
    assert plan.scores is not None
    assert plan.anchors.tolist() == plan.scores.topk(7).indices.sort().values.tolist()


def test_where_no_word_stands_out_all_rate() -> None:
    tokens = tokens_of(LAYERS["random-43"])
    alike = {**tokens.signals, "text": tokens.signals["text"][:1].repeat(6, 1)}
    assert raters_of(replace(tokens, signals=alike)).tolist() == [0, 1, 2, 3, 4, 5]


def test_without_embeddings_features_stand_for_them() -> None:
    tokens = tokens_of(LAYERS["random-43"])
    own = {name: value for name, value in tokens.signals.items() if name != "embeddings"}
    entered = {**tokens.signals, "embeddings": tokens.features}
    for stage in (SparseVLMStage(keep=7), SparseVLMStage(keep=30)):
        plans = [stage.plan(replace(tokens, signals=signals)) for signals in (own, entered)]
        assert torch.equal(plans[0].assign, plans[1].assign)


def test_it_needs_text() -> None:
    tokens = tokens_of(LAYERS["random-43"])
    without = {name: value for name, value in tokens.signals.items() if name != "text"}
    with pytest.raises(tp.InvalidValueError, match="text"):
        SparseVLMStage(keep=7).plan(replace(tokens, signals=without))


@pytest.mark.parametrize(("depth", "layers"), [(32, [2, 6, 15]), (28, [1, 5, 13]), (4, [0, 1, 2])])
def test_the_paper_s_layers(depth: int, layers: list[int]) -> None:
    assert [stage.layer for stage in tp.SparseVLM().operators(depth)] == layers  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [{"tau": 1.5}, {"theta": -0.1}, {"tau": "half"}], ids=str)
def test_what_is_not_allowed_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(tp.InvalidValueError):
        tp.SparseVLM(keep=3, **arguments)
