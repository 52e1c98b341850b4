# SPDX-License-Identifier: Apache-2.0
"""References of methods that prune inside the LLM (FastV, PyramidDrop) against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from .by_hand import rows
from .methods import fastv, pyramiddrop
from .methods.schedule import counts


def attention(*heads: list[list[float]]) -> np.ndarray:
    """(heads, R, N)."""
    return np.array(heads, dtype=np.float64)


def test_fastv_reads_the_last_row_of_all_heads_alike() -> None:
    # Means of the last rows: .15, .3, .2, .3; a mean of all rows would put the first ahead, a maximum the last.
    seen = attention([[0.9, 0.0, 0.0, 0.0], [0.2, 0.3, 0.4, 0.0]], [[0.9, 0.0, 0.0, 0.0], [0.1, 0.3, 0.0, 0.6]])
    plan = fastv.reference(rows(1, 2, 3, 4), seen, keep=2)
    assert plan.anchors == [1, 3]
    assert plan.assign == [-1, 0, -1, 1]
    np.testing.assert_array_equal(plan.merged, rows(2, 4))
    assert plan.scores is not None
    np.testing.assert_allclose(plan.scores, [0.15, 0.3, 0.2, 0.3])
    assert plan.tied is False
    assert fastv.reference(rows(1, 2, 3, 4), seen, keep=1).anchors == [1]  # a tie: the lower index
    assert fastv.reference(rows(1, 2, 3, 4), seen, keep_ratio=0.51).anchors == [1, 2, 3]  # 2.04 rounded up


def test_a_schedule_counts_from_what_entered_its_first_stage() -> None:
    assert counts(8, (0.5, 0.25, 0.125)) == [4, 2, 1]
    assert counts(37, (0.5, 0.25, 0.125)) == [19, 10, 5]  # of what is left: 19, 5, 1
    assert counts(3, (0.5, 0.25, 0.125)) == [2, 1, 1]
    assert counts(10, (0.3, 0.7, 0.2)) == [3, 3, 2]  # nothing comes back
    assert counts(100, (0.07,)) == [7]


@pytest.mark.parametrize(("depth", "expected"), [(32, [7, 15, 23]), (28, [6, 13, 20]), (4, [0, 1, 2])])
def test_pyramiddrop_stages_are_quarters_of_the_depth(depth: int, expected: list[int]) -> None:
    assert pyramiddrop.last_layers(depth) == expected


def test_pyramiddrop_reads_each_stage_anew() -> None:
    first = [0.1, 0.4, 0.3, 0.2, 0.5, 0.0, 0.0, 0.0]
    second = [9.0, 0.1, 0.3, 0.3, 0.2, 9.0, 9.0, 9.0]  # what is gone does not come back
    third = [9.0, 9.0, 0.1, 0.2, 9.0, 9.0, 9.0, 9.0]
    asked: list[list[int]] = []

    def rows_at(stage: int, there: list[int]) -> np.ndarray:
        asked.append(there)
        return np.array((first, second, third)[stage])[None, None, there]

    result = pyramiddrop.reference(rows(*range(8)), rows_at)
    assert asked == [list(range(8)), [1, 2, 3, 4], [2, 3]]
    assert result.kept == [[1, 2, 3, 4], [2, 3], [3]]
    assert [plan.anchors for plan in result.plans] == [[1, 2, 3, 4], [1, 2], [1]]
