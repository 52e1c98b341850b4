# SPDX-License-Identifier: Apache-2.0
"""FastVID: the last frame of each run carries salient tokens, and context that takes in the whole scene."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods.held import agrees_on_all_clips, few

import tokenprune as tp

SETTINGS: list[dict[str, Any]] = [
    {},
    {"segments": 1, "tau": 0.2},
    {"segments": 2, "frame_step": 1, "beta": 0.0},
    {"segments": 1, "tau": -1.0, "ignore": 0.5, "context_ratio": 0.9, "frame_step": 2},
]


@pytest.mark.parametrize("more", SETTINGS, ids=str)
def test_it_is_the_reference(more: dict[str, Any]) -> None:
    agrees_on_all_clips(tp.FastVID, **more)


def two_frames() -> tp.VisualTokens:
    """One scene of two frames of four tokens that are too unlike to be a run."""
    rows = [[4.0, 0, 0], [0, 1, 0], [0, 2, 0], [0, 3, 0], [0, 0, 8], [0, 2, 0.5], [0, 0, 1], [0.5, 2, 0]]
    return few(*rows, grid=(2, 2, 2), encoder_pooled=[0.7, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1])


ONE_SCENE: dict[str, Any] = {"segments": 1, "tau": -1.0, "ignore": 1.0}


def test_a_token_feeds_the_context_of_every_anchor_frame() -> None:
    tokens = two_frames()
    plan = tp.FastVID(keep=4, context_ratio=0.5, frame_step=1, **ONE_SCENE).plan(tokens)
    # Salient 0 and 4; a context token in each frame, which takes in all that is not salient, the other one too.
    assert plan.kept == 4
    assert {0, 4} < set(plan.anchors.tolist())
    assert plan.mixing is not None
    [a, b] = sorted(set(plan.anchors.tolist()) - {0, 4})
    rest = {1, 2, 3, 5, 6, 7}
    for anchor in (a, b):
        place = plan.anchors.tolist().index(anchor)
        mine = plan.mixing.rows == place
        assert set(plan.mixing.columns[mine].tolist()) == rest
        weights = dict(zip(plan.mixing.columns[mine].tolist(), plan.mixing.weights[mine].tolist()))
        assert weights.pop(anchor) == pytest.approx(0.6)
        assert list(weights.values()) == pytest.approx([0.4 / 5] * 5)
    assert bool((plan.assign >= 0).all())


def test_only_the_last_frame_of_a_run_carries_tokens() -> None:
    tokens = few(*[[1.0, 0.1 * i] for i in range(8)], grid=(4, 1, 2), encoder_pooled=[0.5] * 8)
    plan = tp.FastVID(keep=2, segments=1).plan(tokens)
    assert {anchor // 2 for anchor in plan.anchors.tolist()} == {3}
    more = tp.FastVID(keep=5, segments=1).plan(tokens)  # frame 3 is full: the earlier frames, one each
    assert more.anchors.tolist() == [0, 2, 4, 6, 7]


def test_a_remainder_of_context_goes_to_the_later_frames_and_of_salient_tokens_to_the_earlier() -> None:
    plan = tp.FastVID(keep=5, context_ratio=0.6, frame_step=1, **ONE_SCENE).plan(two_frames())
    assert plan.mixing is not None
    context = plan.anchors[plan.mixing.rows.unique()]
    assert [int((context // 4 == t).sum()) for t in (0, 1)] == [1, 2]
    assert torch.bincount(plan.anchors // 4).tolist() == [2, 3]


def test_frames_of_one_token_have_no_room_for_context() -> None:
    tokens = few([1.0, 0], [0, 1.0], [1.0, 1.0], encoder_pooled=[1.0] * 3)
    plan = tp.FastVID(keep=2).plan(tokens)
    assert plan.mixing is None
    assert plan.kept == 2


def test_what_is_not_allowed_is_refused() -> None:
    for name, value in [("segments", 0), ("frame_step", 1.5), ("tau", 2), ("ignore", "x"), ("context_ratio", -1)]:
        with pytest.raises(tp.InvalidValueError, match=name):
            tp.FastVID(keep=1, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(tp.InvalidValueError, match="encoder_pooled"):
        tp.FastVID(keep=1).plan(few([1.0], [2.0]))
