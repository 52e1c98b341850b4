# SPDX-License-Identifier: Apache-2.0
"""V2Drop: what a layer has moved stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods.held import CLOSE
from methods.inside import LAYERS, agrees_on_all_layers, stages_kept, tokens_of
from oracles.methods import v2drop

import tokenprune as tp
from tokenprune.operators.v2drop import V2DropStage


def test_a_stage_is_the_reference() -> None:
    agrees_on_all_layers(V2DropStage, lambda seen, **budget: v2drop.reference(seen.features, seen.before, **budget))


def test_the_schedule_is_the_reference() -> None:
    held = []
    for seen in LAYERS.values():
        states = seen.features, seen.before

        def states_at(stage: int, there: list[int], states: tuple[np.ndarray, ...] = states) -> tuple[np.ndarray, ...]:
            return states[0][there], states[1][there]

        expected = v2drop.schedule(len(seen.features), states_at)
        kept = stages_kept(tp.V2Drop(), seen)
        assert [len(stage) for stage in kept] == [len(stage) for stage in expected.kept]
        held.append(min(plan.margin for plan in expected.plans) >= CLOSE)
        if held[-1]:
            assert kept == expected.kept
    assert sum(held) > 0.6 * len(held)


@pytest.mark.parametrize(("depth", "layers"), [(32, [2, 16, 21]), (28, [2, 14, 18]), (4, [1, 2, 3])])
def test_early_middle_and_late(depth: int, layers: list[int]) -> None:
    assert [stage.layer for stage in tp.V2Drop().operators(depth)] == layers  # type: ignore[attr-defined]


def test_it_reads_no_attention_and_nothing_before_layer_0() -> None:
    stage = V2DropStage(keep=3)
    assert stage.reads == ("features", "hidden-1")
    with pytest.raises(tp.InvalidValueError, match="2 ratios need as many layers"):
        tp.V2Drop(ratios=(0.5, 0.2)).operators(28)


def test_states_must_be_finite() -> None:
    tokens = tokens_of(LAYERS["random-43"])
    broken = replace(tokens, features=tokens.features.index_fill(0, torch.tensor([3]), torch.nan))
    with pytest.raises(tp.InvalidValueError, match="finite"):
        V2DropStage(keep=3).plan(broken)
