# SPDX-License-Identifier: Apache-2.0
"""GleanVID against its slow reference, and its parts by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods.compared import BUDGETS, CLIPS, assert_as_reference, assert_scores

import tokenprune as tp
from tokenprune.operators.leading_direction import leading_direction
from tokenprune.operators.novelty import Cells, novelty


@pytest.mark.parametrize("settings", BUDGETS, ids=str)
@pytest.mark.parametrize("clip", CLIPS)
def test_it_decides_as_the_reference(clip: str, settings: dict[str, Any]) -> None:
    assert_scores(*assert_as_reference(tp.GleanVID(**settings), CLIPS[clip], **settings), atol=1e-3)


def test_a_frame_that_brings_nothing_new_gets_less() -> None:
    """Frame 2 repeats frame 0; frame 1 is another picture."""
    draw = torch.Generator().manual_seed(3)
    first, other = torch.randn(2, 16, 64, generator=draw)
    plan = tp.GleanVID(keep=24).plan(tp.VisualTokens(torch.cat([first, other, first]), (3, 4, 4)))
    counts = torch.bincount(plan.anchors // 16, minlength=3).tolist()
    assert counts[2] < 6
    assert min(counts[:2]) > 8


def test_the_span_may_fill_the_whole_space() -> None:
    """Once 8 tokens span all 8 dimensions nothing is new: the rest is chosen by what stands out, not by rounding."""
    draw = torch.Generator().manual_seed(4)
    frames = torch.randn(6, 12, 8, generator=draw)
    plan = tp.GleanVID(keep=60).plan(tp.VisualTokens(frames.reshape(72, 8), (6, 3, 4)))
    assert plan.scores is not None
    last = plan.scores.view(6, 12)[-1]
    assert float(last.amax()) == pytest.approx(1.0)  # one min-max, not two


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (300, 120), (1, 5), (5, 1)], ids=str)
def test_the_leading_direction_is_the_first_singular_vector(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(5)
    rows = torch.randn(shape, generator=draw) * 0.9 ** torch.arange(shape[1])
    expected = torch.linalg.svd(rows.double(), full_matrices=False).Vh[0]
    assert abs(float(leading_direction(rows).double() @ expected)) == pytest.approx(1.0, abs=1e-5)


def test_of_zeros_there_is_no_direction() -> None:
    assert not leading_direction(torch.zeros(6, 4)).any()


def test_novelty_by_hand() -> None:
    """One cell of one place: (3, 4), then twice as long, then at a right angle."""
    frames = torch.tensor([[[3.0, 4.0]], [[6.0, 8.0]], [[-4.0, 3.0]]])
    first, second, third = novelty(frames, Cells.of((3, 1, 1), frames.device), 1e-4)
    assert first == pytest.approx(5.0)
    assert second == pytest.approx((100 - 50**2 / (25 * (1 + 1e-4))) ** 0.5, rel=1e-4)
    assert third == pytest.approx(5.0)


def test_cells_at_odd_edges_are_partial() -> None:
    cells = Cells.of((1, 3, 3), torch.device("cpu"))
    assert cells.home.tolist() == [0, 0, 1, 0, 0, 1, 2, 2, 3]
    means = cells.means(torch.arange(9.0).view(1, 9, 1)).flatten()
    assert means.tolist() == [2.0, 3.5, 6.5, 8.0]
