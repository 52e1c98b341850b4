# SPDX-License-Identifier: Apache-2.0
"""DPC-KNN and the segments made from it, against the slow reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.prunevid_reference import dpc_knn as reference_dpc_knn
from oracles.prunevid_reference import find_segments as reference_segments
from oracles.prunevid_reference import portion as reference_portion
from oracles.prunevid_reference import refine_labels as reference_refine

from tokenprune import batching
from tokenprune.cluster import dpc_knn, portion
from tokenprune.errors import InvalidValueError
from tokenprune.segments import label_frames, refine_labels, segments_of


def run(points: np.ndarray, counts: list[int], *, scale: str = "relative", neighbours: int = 7, dtype=torch.float32):
    """Centres in order of falling score and the centre of each point, per group of ``points`` (G, n, D)."""
    tensor = torch.from_numpy(points).to(dtype)
    unit = torch.full((len(points),), float(points.shape[2]), dtype=torch.float64)
    found = dpc_knn(tensor, torch.tensor(counts), unit, neighbours=neighbours, distance_scale=scale)
    return [
        (ranks.argsort()[:count].tolist(), centres.tolist())
        for ranks, centres, count in zip(found.ranks, found.centres, counts)
    ]


def reference(points: np.ndarray, counts: list[int], *, scale: str = "relative", neighbours: int = 7):
    result = []
    for group, count in zip(points, counts):
        centres, labels = reference_dpc_knn(list(group), count, distance_scale=scale, neighbours=neighbours)
        result.append((centres, [centres[label] for label in labels]))
    return result


@pytest.mark.parametrize("scale", ["raw", "relative"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("neighbours", [1, 3, 7, 50])
def test_groups_equal_the_reference(scale: str, dtype: torch.dtype, neighbours: int) -> None:
    points = np.random.default_rng(neighbours).standard_normal((4, 30, 9)).astype(np.float32).astype(np.float64)
    counts = [1, 7, 15, 30]
    assert run(points, counts, scale=scale, neighbours=neighbours, dtype=dtype) == reference(
        points, counts, scale=scale, neighbours=neighbours
    )


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 3)),
    seed=st.integers(0, 10**6),
    span=st.integers(1, 3),
    scale=st.sampled_from(["raw", "relative"]),
    data=st.data(),
)
def test_ties_on_integers_equal_the_reference(shape, seed: int, span: int, scale: str, data) -> None:
    points = np.random.default_rng(seed).integers(-span, span + 1, size=shape).astype(np.float64)
    counts = data.draw(st.lists(st.integers(1, shape[1]), min_size=shape[0], max_size=shape[0]))
    assert run(points, counts, scale=scale) == reference(points, counts, scale=scale)


def test_equal_points_tie_to_the_lower_index() -> None:
    [(centres, owners)] = run(np.ones((1, 5, 3)), [3])
    assert centres == [0, 1, 2]
    assert owners == [0, 1, 2, 0, 0]


def test_scores_of_distant_points_do_not_underflow() -> None:
    points = 1e4 * np.random.default_rng(0).standard_normal((1, 40, 6))
    assert run(points, [8], scale="raw") == reference(points.astype(np.float32).astype(np.float64), [8], scale="raw")


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("limit", [1, 24 * 40 * 7, 24 * 40 * 39])
def test_a_table_in_blocks_of_rows_gives_the_same_clusters(
    monkeypatch: pytest.MonkeyPatch, limit: int, integers: bool
) -> None:
    generator = np.random.default_rng(7)
    points = generator.integers(0, 3, (1, 40, 4)) * 1.0 if integers else generator.standard_normal((1, 40, 4))
    whole = run(points, [13])
    monkeypatch.setattr(batching, "DISTANCE_BYTES", limit)
    assert run(points, [13]) == whole == reference(points.astype(np.float32).astype(np.float64), [13])


@pytest.mark.parametrize("scale", ["raw", "relative"])
@pytest.mark.parametrize("limit", [10**9, 24 * 40 * 7])
def test_padding_is_of_no_consequence(monkeypatch: pytest.MonkeyPatch, limit: int, scale: str) -> None:
    monkeypatch.setattr(batching, "DISTANCE_BYTES", limit)
    generator = np.random.default_rng(3)
    sizes, counts = [40, 3, 17, 40, 1], [13, 2, 17, 1, 1]
    points = generator.integers(-1, 2, (5, 40, 6)).astype(np.float64)  # whole numbers: many ties, no rounding
    unit = torch.full((5,), 6.0, dtype=torch.float64)
    found = dpc_knn(
        torch.from_numpy(points).float(),
        torch.tensor(counts),
        unit,
        neighbours=7,
        distance_scale=scale,
        sizes=torch.tensor(sizes),
    )
    for group, (size, count) in enumerate(zip(sizes, counts)):
        [(centres, owners)] = run(points[group : group + 1, :size], [count], scale=scale)
        assert found.ranks[group].argsort()[:count].tolist() == centres
        assert found.centres[group, :size].tolist() == owners


def test_an_unknown_distance_scale_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="distance_scale must be one of raw, relative, got 'cosine'"):
        run(np.ones((1, 3, 2)), [1], scale="cosine")


@given(count=st.integers(1, 10**4), ratio=st.decimals("0.001", "1", places=3).map(float))
def test_portion_reads_the_decimal_that_was_written(count: int, ratio: float) -> None:
    assert portion(count, ratio) == reference_portion(count, ratio)


def test_portion_is_not_misled_by_binary_fractions() -> None:
    assert portion(100, 0.29) == 29  # int(100 * 0.29) is 28


@pytest.mark.parametrize("length", range(1, 8))
def test_refined_labels_equal_the_reference_on_all_short_sequences(length: int) -> None:
    for labels in itertools.product(range(3), repeat=length):
        assert refine_labels(list(labels)) == reference_refine(list(labels)), labels


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_refined_labels_equal_the_reference(labels: list[int]) -> None:
    refined = refine_labels(labels)
    assert refined == reference_refine(labels)
    if len(labels) > 1:
        assert min(len(list(run)) for _, run in itertools.groupby(refined)) > 1


@pytest.mark.parametrize("scale", ["raw", "relative"])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("frames", [1, 2, 5, 12, 33])
def test_segments_equal_the_reference(frames: int, ratio: float, scale: str) -> None:
    generator = np.random.default_rng(frames)
    scenes = generator.standard_normal((frames // 4 + 1, 1, 6))
    tokens = scenes[np.arange(frames) // 4] + 0.05 * generator.standard_normal((frames, 3, 6))
    unit = torch.tensor(3.0 * 3.0 * 6.0, dtype=torch.float64)
    sums = torch.from_numpy(tokens.sum(axis=1))
    clusters = portion(frames, ratio)
    labels = label_frames(sums, clusters, unit=unit[None], neighbours=7, distance_scale=scale)
    found = segments_of(labels.tolist())
    assert found == reference_segments(tokens, ratio, distance_scale=scale)
