# SPDX-License-Identifier: Apache-2.0
"""Shares and their Wilson intervals, and requests that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenprune.bench.benchmark import Z_95, BenchmarkRequest, Share
from tokenprune.errors import InvalidValueError


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (485, 500, 0.9511, 0.9817)],
)
def test_published_values(count: int, total: int, low: float, high: float) -> None:
    assert Share(count, total).interval == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 10_000), st.data())
def test_the_ends_are_the_shares_that_lie_just_so_far_away(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, total))
    share = Share(count, total)
    low, high = share.interval
    assert 0 <= low <= share.value <= high <= 1
    for end in (low, high):
        if 0 < end < 1:  # the definition: the score test of the end gives exactly z
            assert abs(share.value - end) == pytest.approx(Z_95 * (end * (1 - end) / total) ** 0.5, rel=1e-6)


@pytest.mark.parametrize(("count", "total"), [(0, 0), (-1, 4), (5, 4)])
def test_no_share(count: int, total: int) -> None:
    with pytest.raises(InvalidValueError, match="count"):
        Share(count, total)


@pytest.mark.parametrize("values", [{"questions": 0}, {"questions": True}, {"questions": 1.5}, {"seed": -1}])
def test_bad_requests(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(values))):
        BenchmarkRequest(**values)
