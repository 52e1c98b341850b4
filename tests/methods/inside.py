# SPDX-License-Identifier: Apache-2.0
"""Operators inside the LLM held against the slow references of their methods, on made-up layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from methods import made_up
from methods.held import BUDGETS, same_plan
from oracles.methods import ReferencePlan
from oracles.seen import Seen, method_layers
from torch import Tensor

import tokenprune as tp
from tokenprune.stage import Stage

LAYERS = {seen.name: seen for seen in method_layers()}


def tokens_of(seen: Seen, there: list[int] | None = None) -> tp.VisualTokens:
    """The row's visual tokens; ``there`` are those that are left of them."""
    tokens = made_up.tokens_of(seen)
    if there is None:
        return tokens
    left = tp.TokenPlan.keeping(torch.tensor(there), len(tokens)).apply(tokens)
    view = only(tokens.signals["attention"], torch.tensor(there))
    return replace(left, signals={**left.signals, "attention": view})


def only(view: tp.AttentionView, there: Tensor) -> tp.AttentionView:
    """The view of some of its visual columns."""
    mine = replace(view, visual_columns=view.visual_columns[there])
    neighbour = view.neighbour
    return mine if neighbour is None else replace(mine, neighbour=lambda offset: only(neighbour(offset), there))


def stages_kept(schedule: Any, seen: Seen, depth: int = 32) -> list[list[int]]:
    """What each stage of a schedule leaves of the row's tokens."""
    there, kept = list(range(len(seen.features))), []
    for operator in schedule.operators(depth):
        stage = Stage.of(operator, depth, schedule=0).of_entered(len(seen.features))
        if stage.acts_on(len(there)):
            there = [there[place] for place in stage.decide(tokens_of(seen, there)).anchors.tolist()]
        kept.append(there)
    return kept


def agrees(operator: Any, seen: Seen, reference: ReferencePlan) -> bool:
    """The plan equals the reference's; False where a decision was too close to call."""
    plan = same_plan(operator, tokens_of(seen), reference)
    if plan is None:
        return False
    if plan.scores is not None and reference.scores is not None:
        np.testing.assert_allclose(plan.scores.numpy(), reference.scores, rtol=1e-4, atol=1e-5)
    return True


def agrees_on_all_layers(
    make: Callable[..., Any],
    reference: Callable[..., ReferencePlan],
    budgets: Sequence[Mapping[str, Any]] = BUDGETS,
    **more: Any,
) -> None:
    """At every budget and layer; ``reference(seen, **budget)``. Most decisions must not be too close to call."""
    pairs = [(seen, budget) for seen in LAYERS.values() for budget in budgets]
    held = [agrees(make(**budget, **more), seen, reference(seen, **budget, **more)) for seen, budget in pairs]
    assert sum(held) > 0.8 * len(held)
