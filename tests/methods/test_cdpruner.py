# SPDX-License-Identifier: Apache-2.0
"""CDPruner against its slow reference, and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from methods.compared import BUDGETS, CLIPS, assert_as_reference, tokens_of, video

import tokenprune as tp
from tokenprune.budget import split_budget


@pytest.mark.parametrize("relevance", ["given", "text"])
@pytest.mark.parametrize("settings", BUDGETS, ids=str)
@pytest.mark.parametrize("clip", CLIPS)
def test_it_decides_as_the_reference(clip: str, settings: dict[str, Any], relevance: str) -> None:
    """The reference has one kernel for the whole video; past its rank both go on by relevance."""
    operator = tp.CDPruner(**settings, relevance=relevance, chunk=CLIPS[clip].grid[0])
    assert_as_reference(operator, CLIPS[clip], **settings, relevance=relevance)


def test_relevance_and_diversity_by_hand() -> None:
    """The second most relevant is a copy of the first, so the third goes on; then the most relevant of the rest."""
    rows = [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    tokens = video(rows, (1, 2, 2), relevance=[1.0, 0.9, 0.5, 0.0])
    assert tp.CDPruner(keep=1).plan(tokens).anchors.tolist() == [0]
    plan = tp.CDPruner(keep=2).plan(tokens)
    assert plan.anchors.tolist() == [0, 2]
    assert plan.scores is not None
    assert plan.scores.tolist() == pytest.approx([1, 0, 0.25, 0], abs=1e-5)
    assert tp.CDPruner(keep=3).plan(tokens).anchors.tolist() == [0, 1, 2]


def test_text_of_low_similarity_is_relevant() -> None:
    tokens = video([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], (1, 1, 3), text=[[2.0, 0.0], [0.1, 0.0]])
    assert tp.CDPruner(keep=1, relevance="text").plan(tokens).anchors.tolist() == [2]


def test_frames_are_decided_each_on_its_own_with_one_scale_of_relevance() -> None:
    clip = CLIPS["drifting-41"]
    tokens = tokens_of(clip, ("relevance",))
    whole = tp.CDPruner(keep=40).plan(tokens)
    assert torch.bincount(whole.anchors // 12).tolist() == [5] * 8
    relevance = tokens.signals["relevance"]
    scaled = (relevance - relevance.amin()) / (relevance.amax() - relevance.amin())
    for t in range(8):
        rows = slice(12 * t, 12 * (t + 1))
        units = torch.nn.functional.normalize(tokens.features[rows].double(), dim=1) * scaled[rows, None]
        chosen: list[int] = []
        for _ in range(5):  # the definition: what makes the determinant of the kernel largest
            minors = [
                -1.0 if i in chosen else float(torch.linalg.det(units[[*chosen, i]] @ units[[*chosen, i]].T))
                for i in range(12)
            ]
            chosen.append(minors.index(max(minors)))
        assert whole.anchors[whole.anchors // 12 == t].tolist() == [12 * t + i for i in sorted(chosen)]


def test_frames_of_unequal_length() -> None:
    """After another operator: padding is never chosen, and does not decide."""
    clip = CLIPS["random-43"]
    relevance = tokens_of(clip, ("relevance",)).signals["relevance"].clone()
    relevance[0], relevance[1] = -1, 2  # the scale is that of the first frame
    tokens = replace(tokens_of(clip), signals={"relevance": relevance})
    left = [*range(9), 12, 20, 21, *range(27, 35), 40]
    plan = tp.CDPruner(keep=11).plan(tp.TokenPlan.keeping(torch.tensor(left), 45).apply(tokens)).validate()
    sizes = [9, 1, 2, 8, 1]
    frame = torch.tensor(sizes).cumsum(0)
    counts = torch.bincount(torch.bucketize(plan.anchors, frame, right=True), minlength=5).tolist()
    assert counts == split_budget(sizes, sizes, 11)
    alone = tp.VisualTokens(tokens.features[:9], (1, 3, 3), signals={"relevance": relevance[:9]})
    assert tp.CDPruner(keep=counts[0]).plan(alone).anchors.tolist() == plan.anchors[: counts[0]].tolist()


def test_the_signal_is_asked_for_by_name() -> None:
    tokens = tp.VisualTokens(torch.randn(4, 3), (1, 2, 2))
    with pytest.raises(tp.InvalidValueError, match="reads the signal relevance"):
        tp.CDPruner(keep=2).plan(tokens)
    with pytest.raises(tp.InvalidValueError, match="text of at least one row of 3"):
        tp.CDPruner(keep=2, relevance="text").plan(replace(tokens, signals={"text": torch.randn(2, 4)}))
    with pytest.raises(tp.InvalidValueError, match="signal relevance must be finite"):
        tp.CDPruner(keep=2).plan(replace(tokens, signals={"relevance": torch.tensor([0.0, 1.0, torch.nan, 2.0])}))
    with pytest.raises(tp.InvalidValueError, match="did you mean 'given'"):
        tp.CDPruner(keep=2, relevance="givn")
    assert tp.CDPruner(keep=2).needs == ("relevance",)
    assert tp.CDPruner(keep=2, relevance="text").needs == ("text",)
