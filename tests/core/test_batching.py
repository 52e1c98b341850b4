# SPDX-License-Identifier: Apache-2.0
"""Which groups are computed in one call, and how much at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenprune import batching
from tokenprune.batching import BYTES_A_PAIR, PieceLimits, batches, limits_of, pieces

CPU = torch.device("cpu")


@given(
    sizes=st.lists(st.integers(1, 300), max_size=60), dim=st.integers(1, 4000), kind=st.sampled_from(["cpu", "cuda"])
)
def test_every_group_is_in_one_call_that_keeps_the_limits(sizes: list[int], dim: int, kind: str) -> None:
    device = torch.device(kind)
    limits = limits_of(device)
    calls = list(batches(sizes, dim, device))
    assert sorted(place for call in calls for place in call) == list(range(len(sizes)))
    for call in calls:
        largest = max(sizes[place] for place in call)
        assert sizes[call[0]] == largest
        assert sum(largest**2 - sizes[place] ** 2 for place in call) * dim <= limits.wasted_products
        assert len(call) == 1 or len(call) * largest * dim * 4 <= limits.point_bytes
        assert len(call) == 1 or len(call) * largest * largest * BYTES_A_PAIR <= batching.DISTANCE_BYTES


def test_the_limits_decide_how_many_groups_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(batches([10] * 12, 1, CPU)) == [list(range(12))]
    monkeypatch.setattr(batching, "DISTANCE_BYTES", BYTES_A_PAIR * 100 * 5)
    assert [len(call) for call in batches([10] * 12, 1, CPU)] == [5, 5, 2]
    monkeypatch.setattr(batching, "CPU_LIMITS", PieceLimits(point_bytes=4 * 10 * 3, wasted_products=0))
    assert [len(call) for call in batches([10, 9, 10, 10, 10], 1, CPU)] == [3, 1, 1]


@given(count=st.integers(0, 50), numbers=st.integers(0, 10**7))
def test_pieces_cover_the_range_within_the_limit(count: int, numbers: int) -> None:
    found = list(pieces(count, numbers, CPU))
    assert [place for piece in found for place in range(count)[piece]] == list(range(count))
    for piece in found:
        steps = piece.stop - piece.start
        assert steps == 1 or steps * numbers * 4 <= limits_of(CPU).point_bytes
