# SPDX-License-Identifier: Apache-2.0
"""A method's operator beside its slow reference, on clips on which both must decide alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from oracles.clips import Clip, method_clips, signals_of
from oracles.methods import REFERENCES, ReferencePlan

import tokenprune as tp

CLIPS = {clip.name: clip for clip in method_clips()}
BUDGETS: list[dict[str, Any]] = [{"keep_ratio": ratio} for ratio in (0.1, 0.25, 0.5, 0.8)] + [{"keep": 1}]


def tokens_of(clip: Clip, needs: tuple[str, ...] = ()) -> tp.VisualTokens:
    """The clip's tokens, with made-up signals where they are needed."""
    signals = {name: torch.from_numpy(value) for name, value in signals_of(clip).items() if name in needs}
    return tp.VisualTokens(torch.from_numpy(clip.features), clip.grid, signals=signals)


def video(rows: list[list[float]], grid: tuple[int, int, int], **signals: Any) -> tp.VisualTokens:
    """A video written out."""
    return tp.VisualTokens(torch.tensor(rows), grid, signals={k: torch.tensor(v) for k, v in signals.items()})


def reference_of(operator: Any, clip: Clip, **settings: Any) -> ReferencePlan:
    """What the reference decides."""
    return REFERENCES[type(operator).__name__](clip.features, clip.grid, signals=signals_of(clip), **settings)


def assert_as_reference(operator: Any, clip: Clip, **settings: Any) -> tuple[tp.TokenPlan, ReferencePlan]:
    """The same anchors, the same homes, the same features; both plans, for more."""
    tokens = tokens_of(clip, getattr(operator, "needs", ()))
    expected = reference_of(operator, clip, **settings)
    plan = operator.plan(tokens).validate()
    assert plan.anchors.tolist() == expected.anchors
    assert plan.assign.tolist() == expected.assign
    np.testing.assert_allclose(plan.apply(tokens).features, expected.merged, rtol=1e-5, atol=1e-5)
    return plan, expected


def assert_scores(plan: tp.TokenPlan, expected: ReferencePlan, atol: float = 1e-4) -> None:
    """The scores for pictures are what the reference ranked by; of the identity there are none."""
    if not plan.is_identity:
        assert plan.scores is not None
        assert expected.scores is not None
        np.testing.assert_allclose(plan.scores.numpy(), expected.scores, atol=atol)
