# SPDX-License-Identifier: Apache-2.0
"""Made-up clips have the structure that they say they have, and STMerge finds it."""

from __future__ import annotations

import pytest
import torch

import tokenprune as tp
from tokenprune.bench.speed.content import scene_features
from tokenprune.errors import InvalidValueError

GRID = (16, 6, 8)
DIM = 64


def mean_cosines(features: torch.Tensor, frames: int) -> torch.Tensor:
    """``(L,)`` mean over all pairs of the first ``frames`` frames."""
    tokens = torch.nn.functional.normalize(features.view(*GRID, -1)[:frames].flatten(1, 2), dim=-1)
    pairs = torch.combinations(torch.arange(frames))
    return torch.stack([(tokens[a] * tokens[b]).sum(dim=-1) for a, b in pairs.tolist()]).mean(dim=0)


@pytest.mark.parametrize(("static", "still"), [(0.0, 0), (0.3, 14), (0.5, 24), (1.0, 48)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_static_share_is_exact_and_clear(static: float, still: int, seed: int) -> None:
    cosines = mean_cosines(scene_features(GRID, DIM, static=static, seed=seed), 4)
    assert int((cosines > 0.9).sum()) == still
    assert int((cosines < 0.7).sum()) == 48 - still


@pytest.mark.parametrize("static", [0.25, 0.5, 0.75])
def test_st_merge_finds_the_scenes_and_the_static_share(static: float) -> None:
    features = scene_features(GRID, DIM, static=static)
    plan = tp.STMerge(cluster_ratio=1.0).plan(tp.VisualTokens(features, GRID))
    assert plan.segments == ((0, 4), (4, 8), (8, 12), (12, 16))
    still = int(static * 48)
    assert plan.kept == 4 * (still + 4 * (48 - still))  # a static position is left once in each scene


def test_neighbours_are_alike_and_strangers_are_not() -> None:
    tokens = torch.nn.functional.normalize(scene_features(GRID, DIM, static=0.5).view(*GRID, -1), dim=-1)
    across = (tokens[:, :, 1:] * tokens[:, :, :-1]).sum(dim=-1)
    far = (tokens[:, :, 7] * tokens[:, :, 0]).sum(dim=-1)
    assert across.mean() > far.mean() + 0.2


def test_never_zero_and_of_unit_variance() -> None:
    features = scene_features(GRID, DIM, static=0.5)
    assert features.norm(dim=1).min() > 1
    assert features.square().mean().item() == pytest.approx(1, abs=0.05)


def test_the_seed_decides_and_more_frames_go_on() -> None:
    features = scene_features(GRID, DIM, static=0.5)
    assert torch.equal(features, scene_features(GRID, DIM, static=0.5))
    assert not torch.equal(features, scene_features(GRID, DIM, static=0.5, seed=1))
    assert torch.equal(features[: 4 * 48], scene_features((4, 6, 8), DIM, static=0.5))


def test_another_dtype_is_only_rounded() -> None:
    features = scene_features((5, 3, 1), DIM, static=0.5, dtype=torch.bfloat16)
    assert torch.equal(features, scene_features((5, 3, 1), DIM, static=0.5).bfloat16())


@pytest.mark.parametrize(
    ("grid", "dim", "static"), [((0, 2, 2), 8, 0.5), ((2, 2, 2), 0, 0.5), ((2, 2, 2), 8, 1.5), ((2, 2, 2), 8, -0.1)]
)
def test_bad_values_are_refused(grid: tuple[int, int, int], dim: int, static: float) -> None:
    with pytest.raises(InvalidValueError):
        scene_features(grid, dim, static=static)
