# SPDX-License-Identifier: Apache-2.0
"""STMerge with an exact budget: against a slow reference built from the oracles, and by law on arbitrary clips."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.clips import Clip, degenerate_clips, random_clip, structured_clip
from oracles.prunevid_reference import (
    STATIC_SLACK,
    cosine,
    dpc_knn,
    find_segments,
    portion,
    reference_budget_shares,
    static_positions,
)

from tokenprune.budget import Budget
from tokenprune.operators.st_merge import STMerge
from tokenprune.tokens import VisualTokens

CLIPS = [
    *degenerate_clips(),
    random_clip((8, 5, 6), 16, 3),
    structured_clip((12, 6, 7), 24, 4, scenes=3),
    structured_clip((16, 4, 8), 24, 5, scenes=4, noise=0.5),
]


def reference(clip: Clip, keep: int, tau: float, ratio: float, segment_ratio: float, scale: str):
    """(anchor of each token or -1, tokens kept of each block), by loops."""
    frames, height, width = clip.grid
    length = height * width
    tokens = clip.features.astype(np.float64).reshape(frames, length, -1)
    segments = find_segments(tokens, segment_ratio, distance_scale=scale)
    static = [static_positions(tokens[start:stop], tau) for start, stop in segments]

    def likeness(segment: int, position: int) -> float:
        start, stop = segments[segment]
        pairs = [(a, b) for a in range(start, stop) for b in range(start, a)]
        mean = math.fsum(cosine(tokens[a, position], tokens[b, position]) for a, b in pairs) / len(pairs)
        return round(mean / STATIC_SLACK)  # what fp32 can tell apart

    ranked = sorted((likeness(s, p), s, p) for s, positions in enumerate(static) for p in positions)
    capacity = sum(len(p) + (stop - start) * (length - len(p)) for p, (start, stop) in zip(static, segments))
    for _, segment, position in ranked:
        if capacity >= keep:
            break
        static[segment].remove(position)
        capacity += segments[segment][1] - segments[segment][0] - 1

    blocks: list[tuple[range, int, list[int]]] = []  # frames merged, frame of the anchor, positions
    for (start, stop), still in zip(segments, static):
        moving = [position for position in range(length) if position not in still]
        blocks.append((range(start, stop), start, sorted(still)))
        blocks.extend((range(t, t + 1), t, moving) for t in range(start, stop))
    sizes = [len(positions) for _, _, positions in blocks]
    natural = [size if size <= 14 else portion(size, ratio) for size in sizes]
    shares = reference_budget_shares(natural, sizes, keep)
    anchor_of = [-1] * (frames * length)
    for (merged, home, positions), share in zip(blocks, shares):
        if share == 0:
            continue
        owners = list(range(len(positions)))
        if share < len(positions):
            points = [tokens[merged.start : merged.stop, position].sum(axis=0) for position in positions]
            centres, labels = dpc_knn(points, share, divisor=len(merged), distance_scale=scale)
            owners = [centres[label] for label in labels]
        for position, owner in zip(positions, owners):
            for t in merged:
                anchor_of[t * length + position] = home * length + positions[owner]
    return anchor_of, shares


@pytest.mark.parametrize("scale", ["raw", "relative"])
@pytest.mark.parametrize("keep_ratio", [0.001, 0.05, 0.3, 0.7, 0.97])
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
def test_the_plan_equals_the_reference(clip: Clip, keep_ratio: float, scale: str) -> None:
    tokens = VisualTokens(torch.from_numpy(clip.features), clip.grid)
    keep = Budget(keep_ratio=keep_ratio).count(len(tokens))
    for tau, ratio, segment_ratio in ((0.8, 0.5, 0.25), (0.3, 0.2, 0.5)):
        plan = STMerge(tau, ratio, segment_ratio, keep=keep, distance_scale=scale).plan(tokens).validate()
        assert plan.kept == keep
        if keep == len(tokens):
            assert plan.blocks is None
            continue
        anchor_of, shares = reference(clip, keep, tau, ratio, segment_ratio, scale)
        assert [int(plan.anchors[place]) if place >= 0 else -1 for place in plan.assign] == anchor_of
        assert plan.blocks is not None
        assert torch.bincount(plan.blocks, minlength=len(shares)).tolist() == shares


@settings(max_examples=150)
@given(
    grid=st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 5)),
    dim=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["normal", "zero", "equal", "integers", "still", "half zero", "large", "small"]),
    keep_ratio=st.decimals("0.001", "1", places=3).map(float),
    tau=st.sampled_from([0.001, 0.3, 0.8, 1.0]),
    segment_ratio=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_any_budget_is_met_exactly(grid, dim, seed, kind, keep_ratio, tau, segment_ratio, dtype) -> None:
    generator = np.random.default_rng(seed)
    shape = (grid[0], grid[1] * grid[2], dim)
    features = {
        "normal": lambda: generator.standard_normal(shape),
        "zero": lambda: np.zeros(shape),
        "equal": lambda: np.full(shape, 0.1),
        "integers": lambda: generator.integers(0, 2, shape),
        "still": lambda: np.broadcast_to(generator.standard_normal(shape[1:]), shape),
        "half zero": lambda: generator.standard_normal(shape) * (generator.random((*shape[:2], 1)) < 0.5),
        "large": lambda: 1e15 * generator.standard_normal(shape),
        "small": lambda: 1e-15 * generator.standard_normal(shape),
    }[kind]()
    tokens = VisualTokens(torch.tensor(features, dtype=dtype).reshape(-1, dim), grid)
    operator = STMerge(tau, 0.5, segment_ratio, keep_ratio=keep_ratio)
    plan = operator.plan(tokens).validate()
    assert plan.kept == Budget(keep_ratio=keep_ratio).count(len(tokens))
    merged = plan.apply(tokens)
    assert bool(torch.isfinite(merged.features).all())
    if plan.kept >= 2 * grid[0]:  # a token for every block there can be: nothing is dropped
        assert bool((plan.assign >= 0).all())
        assert merged.sizes is not None
        assert int(merged.sizes.sum()) == len(tokens)
    again = operator.plan(tokens)
    assert torch.equal(plan.anchors, again.anchors)
    assert torch.equal(plan.assign, again.assign)


@pytest.mark.parametrize("budget", [{"keep_ratio": 1.0}, {"keep_ratio": 0.9999}, {"keep": 128}, {"keep": 10**6}])
def test_a_budget_of_everything_reads_nothing(budget: dict[str, float]) -> None:
    tokens = VisualTokens(torch.full((128, 4), torch.nan), (8, 4, 4))
    assert STMerge(**budget).plan(tokens).is_identity


def test_still_positions_are_released_from_the_first() -> None:
    frame = torch.randn(1, 12, 40, generator=torch.Generator().manual_seed(1))
    tokens = VisualTokens(frame.expand(4, 12, 40).reshape(48, 40), (4, 3, 4))
    plan = STMerge(keep=20).plan(tokens).validate()
    # Three positions, released, give 4 * 3 + 9 = 21 >= 20 tokens room; the first three, although all are alike.
    moved = {int(anchor) % 12 for anchor in plan.anchors if int(anchor) >= 12}
    assert moved <= {0, 1, 2}
    assert moved
