# SPDX-License-Identifier: Apache-2.0
"""FlashVID: attended and diverse tokens stay, the others hang on trees through time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods.held import CLIPS, agrees_on_all_clips, few, tokens_of

import tokenprune as tp

SETTINGS: list[dict[str, Any]] = [
    {},
    {"min_segment_num": 1, "segment_threshold": -1.0},
    {"alpha": 0.2, "min_segment_num": 2, "temporal_threshold": 0.3},
    {"alpha": 0.0, "min_segment_num": 1, "segment_threshold": 0.5, "temporal_threshold": 0.95},
]


@pytest.mark.parametrize("more", SETTINGS, ids=str)
def test_it_is_the_reference(more: dict[str, Any]) -> None:
    agrees_on_all_clips(tp.FlashVID, **more)


def still(frames: int) -> tp.VisualTokens:
    """One token of each frame stands still, the other, more attended, turns."""
    turns = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    rows = [row for t in range(frames) for row in ([1.0, 0.0, 0.0], turns[t % 2])]
    return few(*rows, grid=(frames, 1, 2), encoder_column=[0.1, 0.4] * frames)


ONE_SCENE: dict[str, Any] = {"min_segment_num": 1, "segment_threshold": -1.0}


def test_a_tree_is_merged_into_its_root_as_a_plain_mean() -> None:
    # Each frame's pick is the attended token; the trees of the rest get what is left of a share of 2: all or nothing.
    plan = tp.FlashVID(keep=5, alpha=0.5, **ONE_SCENE).plan(still(4))
    assert plan.anchors.tolist() == [0, 1, 3, 5, 7]
    assert plan.assign.tolist() == [0, 1, 0, 2, 0, 3, 0, 4]
    assert torch.equal(plan.apply(still(4)).features[0], torch.tensor([1.0, 0.0, 0.0]))


def test_the_authors_arithmetic_doubles_four_equal_frames() -> None:
    plan = tp.FlashVID(keep=5, alpha=0.5, published=True, **ONE_SCENE).plan(still(4))
    assert plan.assign.tolist() == [0, 1, 0, 2, 0, 3, 0, 4]
    assert torch.equal(plan.apply(still(4)).features[0], torch.tensor([2.0, 0.0, 0.0]))  # 4 / (1 + 1 child)
    assert torch.equal(plan.apply(still(4)).features[1], still(4).features[1])


def test_the_weakest_links_are_not_made_where_the_budget_is_larger() -> None:
    plan = tp.FlashVID(keep=7, alpha=0.5, **ONE_SCENE).plan(still(4))
    assert plan.kept == 7
    assert len(plan.anchors[plan.anchors % 2 == 0]) == 3


def test_without_a_share_for_trees_the_rest_is_dropped() -> None:
    plan = tp.FlashVID(keep=4, alpha=0.5, **ONE_SCENE).plan(still(4))
    assert plan.anchors.tolist() == [1, 3, 5, 7]
    assert plan.assign.tolist() == [-1, 0, -1, 1, -1, 2, -1, 3]


def test_picks_weigh_distance_by_attention() -> None:
    tokens = few([1.0, 0], [1.0, 0.1], [0, 1.0], [-1.0, 0], grid=(1, 2, 2), encoder_column=[0.1, 0.9, 0.2, 0.2])
    plan = tp.FlashVID(keep=2, alpha=1.0).plan(tokens)
    # First 3: 0.2 x 1; of the rest 1 is worth 0.9 x 1.995 and 2 is worth 0.2 x 1.
    assert plan.anchors.tolist() == [1, 3]
    assert plan.scores is not None


def test_published_changes_features_only() -> None:
    for clip in CLIPS.values():
        tokens = tokens_of(clip)
        plan, published = (tp.FlashVID(keep_ratio=0.4, published=p, alpha=0.3).plan(tokens) for p in (False, True))
        assert torch.equal(plan.assign, published.assign)


def test_what_is_not_allowed_is_refused() -> None:
    for name, value in [("alpha", 1.2), ("temporal_threshold", 2), ("segment_threshold", "x"), ("min_segment_num", 0)]:
        with pytest.raises(tp.InvalidValueError, match=name):
            tp.FlashVID(keep=1, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(tp.InvalidValueError, match="published"):
        tp.FlashVID(keep=1, published=1)  # type: ignore[arg-type]
