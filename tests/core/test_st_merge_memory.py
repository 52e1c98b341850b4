# SPDX-License-Identifier: Apache-2.0
"""Law 9: how much STMerge holds at a time, observed operation by operation."""

from __future__ import annotations

import weakref

import pytest
import torch
from oracles.clips import structured_clip
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tokenprune import batching
from tokenprune.batching import PieceLimits
from tokenprune.operators.st_merge import STMerge
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens


class Memory(TorchDispatchMode):
    """Bytes of the largest tensor made, and of the most that lived at a time; what existed before is not counted."""

    def __init__(self, *existing: torch.Tensor) -> None:
        super().__init__()
        self.largest = 0
        self.peak = 0
        self._existing = {tensor.untyped_storage().data_ptr() for tensor in existing}
        self._alive: dict[int, tuple[weakref.ref[torch.Tensor], int, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self._existing:
                storage = tensor.untyped_storage()
                self._alive[id(tensor)] = (weakref.ref(tensor), storage.data_ptr(), storage.nbytes())
                self.largest = max(self.largest, storage.nbytes())
        self._alive = {key: entry for key, entry in self._alive.items() if entry[0]() is not None}
        self.peak = max(self.peak, sum({pointer: size for _, pointer, size in self._alive.values()}.values()))
        return result


def observed(operator: STMerge, tokens: VisualTokens) -> tuple[TokenPlan, Memory]:
    with Memory(tokens.features) as memory:
        plan = operator.plan(tokens)
    return plan, memory


def plans_equal(one: TokenPlan, other: TokenPlan) -> bool:
    return torch.equal(one.anchors, other.anchors) and torch.equal(one.assign, other.assign)


@pytest.mark.parametrize("whole_numbers", [True, False])
@pytest.mark.parametrize("operator", [STMerge(), STMerge(keep=500)], ids=["content", "budget"])
def test_pieces_of_frames_and_of_rows_decide_as_the_whole(
    monkeypatch: pytest.MonkeyPatch, operator: STMerge, whole_numbers: bool
) -> None:
    clip = structured_clip((6, 14, 14), 8, 11, noise=0.4)
    features = torch.from_numpy(clip.features)
    tokens = VisualTokens((4 * features).round() if whole_numbers else features, clip.grid)
    whole, before = observed(operator, tokens)
    limit = 100_000
    assert before.largest > 150_000  # one frame's distances

    for points, distances in ((limit, 10**9), (10**9, limit), (limit, limit), (1, 24 * 196 * 15)):
        monkeypatch.setattr(batching, "DISTANCE_BYTES", distances)
        monkeypatch.setattr(batching, "CPU_LIMITS", PieceLimits(points, wasted_products=10**7))
        plan, memory = observed(operator, tokens)
        assert plans_equal(plan, whole)
        if (points, distances) == (limit, limit):
            around = 3 * tokens.features.nbytes  # copies of points, the video's maps of positions
            assert memory.largest <= limit
            assert memory.peak <= limit + around


@pytest.mark.parametrize("operator", [STMerge(), STMerge(keep_ratio=0.25)], ids=["content", "budget"])
def test_the_limit_holds_at_real_size(operator: STMerge) -> None:
    shape = (48, 16, 18)
    features = torch.randn(48 * 288, 3584, generator=torch.Generator().manual_seed(0))
    plan, memory = observed(operator, VisualTokens(features, shape))
    assert 0 < plan.kept < 48 * 288
    assert memory.peak <= batching.DISTANCE_BYTES + 3 * batching.CPU_LIMITS.point_bytes


def test_one_large_frame_is_clustered_within_the_limit() -> None:
    features = torch.randn(64 * 80, 4, generator=torch.Generator().manual_seed(0))
    plan, memory = observed(STMerge(), VisualTokens(features, (1, 64, 80)))
    assert plan.kept == 2560
    assert batching.DISTANCE_BYTES < 5120 * 5120 * 24
    assert memory.peak <= batching.DISTANCE_BYTES


def test_the_large_pieces_of_a_gpu_decide_as_the_small_ones_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = structured_clip((16, 12, 12), 64, 3, scenes=4, noise=0.5)
    tokens = VisualTokens((4 * torch.from_numpy(clip.features)).round(), clip.grid)
    for operator in (STMerge(), STMerge(keep_ratio=0.2), STMerge(temporal_segment_ratio=1.0)):
        small = operator.plan(tokens)
        monkeypatch.setattr(batching, "limits_of", lambda device: batching.DEVICE_LIMITS)
        large = operator.plan(tokens)
        monkeypatch.undo()
        assert plans_equal(small, large)
