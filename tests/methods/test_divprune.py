# SPDX-License-Identifier: Apache-2.0
"""DivPrune: the greedy max-min set, whatever is computed late or never."""

from __future__ import annotations

import math

import pytest
import torch
from methods.held import CLIPS, agrees, agrees_on_all_clips, few, tokens_of
from oracles.clips import structured_clip
from torch import Tensor

import tokenprune as tp
from tokenprune.operators import divprune


def test_it_is_the_reference() -> None:
    agrees_on_all_clips(tp.DivPrune)


def test_scores_are_the_distances_when_picked() -> None:
    clip = CLIPS["drifting-41"]
    reference = agrees(tp.DivPrune(keep=19), clip, keep=19)
    assert reference is not None
    assert reference.scores is not None
    assert reference.order is not None
    scores = tp.DivPrune(keep=19).plan(tokens_of(clip)).scores
    assert scores is not None
    later = torch.arange(len(scores)) != reference.order[0]  # the first had no distance to anything picked
    expected = torch.from_numpy(reference.scores)[later]
    torch.testing.assert_close(scores[later].double(), expected, atol=1e-6, rtol=1e-5)


def test_by_hand() -> None:
    # Nearest others: 0, 0, 0.4, 0.4. Then distance 1 to the third (tie of nobody), and a copy last.
    tokens = few([1, 0, 0], [2, 0, 0], [0, 0, 1], [0, 4, 3])
    assert tp.DivPrune(keep=1).plan(tokens).anchors.tolist() == [2]
    assert tp.DivPrune(keep=2).plan(tokens).anchors.tolist() == [0, 2]
    assert tp.DivPrune(keep=3).plan(tokens).anchors.tolist() == [0, 2, 3]


def plainly(features: Tensor, keep: int) -> list[int]:
    """The definition, with every distance computed."""
    units = torch.nn.functional.normalize(features.double())
    distances = 1 - units @ units.T
    apart = distances.clone().fill_diagonal_(math.inf).amin(dim=1)
    picks = [int(apart.argmax())]
    while len(picks) < keep:
        reach = distances[picks].amin(dim=0)
        reach[picks] = -1
        picks.append(int(reach.argmax()))
    return sorted(picks)


@pytest.mark.parametrize("candidates", [2, 7, 64, 512])
@pytest.mark.parametrize("dim", [12, 96])
def test_what_is_not_computed_changes_nothing(monkeypatch: pytest.MonkeyPatch, candidates: int, dim: int) -> None:
    monkeypatch.setattr(divprune, "CANDIDATES", candidates)
    clip = structured_clip((8, 6, 7), dim, 5, noise=0.4)
    features = torch.from_numpy(clip.features)
    for keep in (1, 9, 80):
        plan = tp.DivPrune(keep=keep).plan(tp.VisualTokens(features, clip.grid))
        assert plan.anchors.tolist() == plainly(features, keep)


def test_more_ties_than_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divprune, "CANDIDATES", 3)
    tokens = few(*torch.eye(8).tolist(), *torch.eye(8).tolist())
    assert tp.DivPrune(keep=8).plan(tokens).anchors.tolist() == list(range(8))
    assert tp.DivPrune(keep=11).plan(tokens).anchors.tolist() == list(range(11))
