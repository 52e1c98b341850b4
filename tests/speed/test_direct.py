# SPDX-License-Identifier: Apache-2.0
"""The direct implementation and STMerge are two ways to the same tokens."""

from __future__ import annotations

import pytest
import torch

import tokenprune as tp
from tokenprune.bench.speed.content import scene_features
from tokenprune.bench.speed.direct import direct_merge


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("grid", "static"),
    [
        ((1, 5, 6), 0.5),  # one frame is its own segment
        ((2, 4, 5), 0.5),
        ((3, 5, 6), 0.5),
        ((8, 7, 9), 0.3),
        ((16, 6, 8), 0.5),
        ((10, 6, 8), 0.0),
        ((12, 6, 8), 1.0),
        ((16, 3, 4), 0.5),  # blocks too small to be clustered
    ],
)
def test_the_same_anchors_and_the_same_means(grid: tuple[int, int, int], static: float, seed: int) -> None:
    tokens = tp.VisualTokens(scene_features(grid, 64, static=static, seed=seed), grid)
    merged, anchors = direct_merge(tokens.features, grid[0])
    plan = tp.STMerge().plan(tokens)
    assert torch.equal(anchors, plan.anchors)
    torch.testing.assert_close(merged, plan.apply(tokens).features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tau", "cluster_ratio", "segment_ratio"), [(0.9, 0.8, 0.5), (0.7, 0.3, 0.25), (0.999, 0.01, 0.1), (0.8, 1.0, 1.0)]
)
def test_the_same_under_other_parameters(tau: float, cluster_ratio: float, segment_ratio: float) -> None:
    grid = (12, 6, 7)
    tokens = tp.VisualTokens(scene_features(grid, 96, static=0.5, seed=3), grid)
    parameters = {"tau": tau, "cluster_ratio": cluster_ratio, "temporal_segment_ratio": segment_ratio}
    merged, anchors = direct_merge(tokens.features, grid[0], **parameters)
    plan = tp.STMerge(**parameters).plan(tokens)
    assert torch.equal(anchors, plan.anchors)
    torch.testing.assert_close(merged, plan.apply(tokens).features, rtol=1e-4, atol=1e-5)


def test_bf16_in_and_out() -> None:
    grid = (8, 6, 8)
    tokens = tp.VisualTokens(scene_features(grid, 64, static=0.5, dtype=torch.bfloat16), grid)
    merged, anchors = direct_merge(tokens.features, grid[0])
    plan = tp.STMerge().plan(tokens)
    assert merged.dtype == torch.bfloat16
    assert torch.equal(anchors, plan.anchors)
    torch.testing.assert_close(merged, plan.apply(tokens).features)
