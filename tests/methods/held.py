# SPDX-License-Identifier: Apache-2.0
"""An operator of the package held against the slow reference of its method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from oracles.clips import Clip, method_clips, signals_of
from oracles.methods import REFERENCES, ReferencePlan

import tokenprune as tp

CLIPS = {clip.name: clip for clip in method_clips()}
BUDGETS: list[Mapping[str, Any]] = [
    {"keep": 1},
    {"keep_ratio": 0.1},
    {"keep_ratio": 0.29},
    {"keep_ratio": 0.6},
    {"keep": 19},
]
CLOSE = 1e-5
"""Decisions closer than this an operator may take either way, since it reads fp32."""


def tokens_of(clip: Clip) -> tp.VisualTokens:
    signals = {name: torch.from_numpy(value) for name, value in signals_of(clip).items()}
    return tp.VisualTokens(torch.from_numpy(clip.features), clip.grid, signals=signals)


def agrees(operator: Any, clip: Clip, **arguments: Any) -> ReferencePlan | None:
    """The plan equals the reference's, given the same arguments; None where a decision was too close to call."""
    reference = REFERENCES[type(operator).__name__](clip.features, clip.grid, signals=signals_of(clip), **arguments)
    plan = same_plan(operator, tokens_of(clip), reference)
    return None if plan is None else reference


def same_plan(operator: Any, tokens: tp.VisualTokens, reference: ReferencePlan) -> tp.TokenPlan | None:
    """The plan, which equals the reference's; None where a decision was too close to call."""
    plan = operator.plan(tokens).validate()
    assert plan.kept == len(reference.anchors)
    if reference.margin < CLOSE:
        return None
    assert plan.anchors.tolist() == reference.anchors
    assert plan.assign.tolist() == reference.assign
    np.testing.assert_allclose(plan.apply(tokens).features.numpy(), reference.merged, rtol=1e-5, atol=1e-5)
    return plan


def agrees_on_all_clips(method: type, budgets: Sequence[Mapping[str, Any]] = BUDGETS, **more: Any) -> None:
    """At every budget and on every clip; most decisions must not be too close to call."""
    held = [agrees(method(**budget, **more), clip, **budget, **more) for clip in CLIPS.values() for budget in budgets]
    assert sum(plan is not None for plan in held) > 0.8 * len(held)


def few(*rows: Sequence[float], grid: tuple[int, int, int] | None = None, **signals: Any) -> tp.VisualTokens:
    """Tokens to reckon with on paper; without a grid each is a frame."""
    named = {name: torch.tensor(value, dtype=torch.float32) for name, value in signals.items()}
    return tp.VisualTokens(torch.tensor(rows, dtype=torch.float32), grid or (len(rows), 1, 1), signals=named)
