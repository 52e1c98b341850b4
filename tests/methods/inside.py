# SPDX-License-Identifier: Apache-2.0
"""Operators inside the LLM held against the slow references of their methods, on made-up layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from oracles.methods import ReferencePlan
from oracles.seen import Seen, method_layers
from torch import Tensor

import tokenprune as tp
from tokenprune.operator import Stage

LAYERS = {seen.name: seen for seen in method_layers()}
BUDGETS: list[Mapping[str, Any]] = [
    {"keep": 1},
    {"keep_ratio": 0.1},
    {"keep_ratio": 0.29},
    {"keep_ratio": 0.6},
    {"keep": 19},
]
CLOSE = 1e-5
"""Decisions closer than this an operator may take either way, since it reads fp32."""


def view_of(seen: Seen) -> tp.AttentionView:
    """The layer, and before and after it others: their keys are turned, the one before has states of its own."""
    columns, rows = torch.tensor(seen.visual_columns), torch.tensor(seen.text_rows)

    def states(visual: np.ndarray, text: np.ndarray) -> Callable[[Tensor], Tensor]:
        whole = torch.zeros(seen.keys.shape[1], visual.shape[1])
        whole[columns], whole[rows] = torch.from_numpy(visual), torch.from_numpy(text)
        return whole.__getitem__

    own = tp.AttentionView(
        read_queries=lambda rotated: torch.from_numpy(seen.queries),
        read_keys=lambda rotated: torch.from_numpy(seen.keys),
        text_rows=rows,
        visual_columns=columns,
        valid_keys=torch.ones(seen.keys.shape[1], dtype=torch.bool),
        scaling=seen.queries.shape[2] ** -0.5,
        read_values=lambda: torch.from_numpy(seen.values),
        read_hidden=states(seen.features, seen.text_features),
    )
    turned = replace(own, read_keys=lambda rotated: torch.from_numpy(next_layer(seen).keys))
    around = {-1: replace(turned, read_hidden=states(seen.before, seen.text_features)), 1: turned}
    return replace(own, neighbour=around.__getitem__)


def next_layer(seen: Seen) -> Seen:
    """The layer after, and the one before: its keys are turned."""
    return replace(seen, keys=np.ascontiguousarray(seen.keys[..., ::-1]))


def tokens_of(seen: Seen, there: list[int] | None = None) -> tp.VisualTokens:
    """The row's visual tokens; ``there`` are those that are left of them."""
    signals = {"text": torch.from_numpy(seen.text), "embeddings": torch.from_numpy(seen.embeddings)}
    tokens = tp.VisualTokens(torch.from_numpy(seen.features), seen.grid, signals=signals)
    view = view_of(seen)
    if there is not None:
        tokens = tp.TokenPlan.keeping(torch.tensor(there), len(tokens)).apply(tokens)
        view = only(view, torch.tensor(there))
    return replace(tokens, signals={**tokens.signals, "attention": view})


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
    tokens = tokens_of(seen)
    plan = operator.plan(tokens).validate()
    assert plan.kept == len(reference.anchors)
    if reference.margin < CLOSE:
        return False
    assert plan.anchors.tolist() == reference.anchors
    assert plan.assign.tolist() == reference.assign
    np.testing.assert_allclose(plan.apply(tokens).features.numpy(), reference.merged, rtol=1e-5, atol=1e-5)
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
