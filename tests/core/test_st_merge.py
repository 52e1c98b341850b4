# SPDX-License-Identifier: Apache-2.0
"""STMerge driven by content, against the slow reference, and the laws every merger keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from oracles.clips import Clip, degenerate_clips, random_clip, structured_clip
from oracles.prunevid_reference import Partition, reference_merge, reference_partition
from torch.utils._python_dispatch import TorchDispatchMode

from tokenprune.cluster import fp32_products_are_rounded
from tokenprune.errors import BudgetError, InvalidValueError
from tokenprune.grid import GridFeatures
from tokenprune.operator import TokenMerger
from tokenprune.operators.st_merge import STMerge
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

PARAMETERS = [(0.8, 0.5, 0.25), (0.95, 0.3, 0.5), (0.5, 0.8, 0.3), (0.1, 0.2, 1.0), (1.0, 1.0, 0.25)]
CLIPS = [
    *degenerate_clips(),
    *(random_clip((8, 5, 6), 16, seed) for seed in range(2)),
    *(structured_clip((12, 6, 7), 24, seed, scenes=3) for seed in range(3)),
    *(structured_clip((16, 4, 8), 24, seed, scenes=4, noise=0.5) for seed in range(3)),
]


def visual_tokens(clip: Clip, dtype: torch.dtype = torch.float32) -> VisualTokens:
    return VisualTokens(torch.from_numpy(clip.features).to(dtype), clip.grid)


def same(one: TokenPlan, other: TokenPlan) -> bool:
    assert one.blocks is not None
    assert other.blocks is not None
    pairs = ((one.anchors, other.anchors), (one.assign, other.assign), (one.blocks, other.blocks))
    return all(torch.equal(a, b) for a, b in pairs)


def expected_blocks(partition: Partition, length: int) -> list[int]:
    """Blocks in time order: a segment's static tokens, then each of its frames' dynamic tokens."""
    number: dict[tuple[str, int], int] = {}
    for start, stop in partition.segments:
        for key in [("static", start), *(("dynamic", frame) for frame in range(start, stop))]:
            number[key] = len(number)
    labels: list[int] = []
    for anchor in partition.anchors:
        frame, position = divmod(anchor, length)
        [(start, still)] = [
            (start, still)
            for (start, stop), still in zip(partition.segments, partition.static)
            if start <= frame < stop
        ]
        labels.append(number["static", start] if position in still else number["dynamic", frame])
    return labels


@pytest.mark.parametrize("scale", ["raw", "relative"])
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
def test_the_plan_equals_the_reference(clip: Clip, parameters: tuple[float, float, float], scale: str) -> None:
    for more in ({}, {"min_tokens": 3, "neighbours": 4}):
        expected = reference_partition(clip.features, clip.grid, *parameters, distance_scale=scale, **more)
        tokens = visual_tokens(clip)
        plan = STMerge(*parameters, distance_scale=scale, **more).plan(tokens).validate()
        assert plan.anchors.tolist() == expected.anchors
        assert plan.assign.tolist() == expected.assign
        assert plan.blocks is not None
        assert plan.blocks.tolist() == expected_blocks(expected, clip.grid[1] * clip.grid[2])
        merged = plan.apply(tokens)
        values = reference_merge(clip.features, expected)
        tolerance = 1e-5 * max(1e-30, float(np.abs(values).max()))
        np.testing.assert_allclose(merged.features.numpy(), values, rtol=1e-5, atol=tolerance)
        assert merged.sizes is not None
        assert int(merged.sizes.sum()) == len(tokens)


def test_the_clips_exercise_static_and_dynamic_tokens_and_several_segments() -> None:
    clip = structured_clip((12, 6, 7), 24, 0, scenes=3)
    partition = reference_partition(clip.features, clip.grid, 0.8, 0.5, 0.25)
    assert len(partition.segments) > 1
    assert any(14 < len(still) < 42 for still in partition.static)
    assert len(partition.anchors) < 0.6 * 12 * 42


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("clip", [CLIPS[0], CLIPS[2], CLIPS[-1]], ids=lambda clip: clip.name)
def test_every_dtype_decides_as_fp32_does_on_the_same_values(clip: Clip, dtype: torch.dtype) -> None:
    for operator in (STMerge(), STMerge(keep_ratio=0.3)):
        tokens = visual_tokens(clip, dtype)
        in_fp32 = VisualTokens(tokens.features.float(), tokens.grid)
        plan = operator.plan(tokens)
        assert same(plan, operator.plan(in_fp32))
        assert plan.apply(tokens).features.dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "exponent"),
    [(torch.float32, 100), (torch.float32, -100), (torch.bfloat16, 110), (torch.float64, 900), (torch.float64, -900)],
)
def test_neither_large_nor_small_features_change_a_relative_plan(dtype: torch.dtype, exponent: int) -> None:
    tokens = visual_tokens(CLIPS[-1], dtype)
    scaled = VisualTokens(tokens.features * torch.tensor(2.0, dtype=torch.float64).pow(exponent).to(dtype), tokens.grid)
    assert bool(torch.isfinite(scaled.features).all())
    assert same(STMerge().plan(tokens), STMerge().plan(scaled))


@pytest.mark.parametrize("factor", [1e4, 1e-4])
@pytest.mark.parametrize("scale", ["raw", "relative"])
def test_scaled_features_equal_the_reference(factor: float, scale: str) -> None:
    clip = structured_clip((12, 6, 7), 24, 5, scenes=3, scale=factor)
    expected = reference_partition(clip.features, clip.grid, 0.8, 0.5, 0.25, distance_scale=scale)
    assert STMerge(distance_scale=scale).plan(visual_tokens(clip)).anchors.tolist() == expected.anchors


@pytest.mark.parametrize("operator", [STMerge(), STMerge(keep=97)], ids=["content", "budget"])
def test_a_plan_is_a_pure_function_of_the_tokens(operator: STMerge) -> None:
    tokens = visual_tokens(CLIPS[-1])
    before, state = tokens.features.clone(), torch.get_rng_state()
    plan = operator.plan(tokens)
    assert torch.equal(tokens.features, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(plan, operator.plan(tokens))
    assert same(plan, operator.plan(VisualTokens(before.t().contiguous().t(), tokens.grid)))
    with torch.device("meta"):
        assert same(plan, operator.plan(tokens))
    with torch.inference_mode():
        assert same(plan, operator.plan(tokens))


def test_nothing_is_recorded_for_a_gradient() -> None:
    tokens = visual_tokens(CLIPS[-1])
    tokens.features.requires_grad_()
    plan = STMerge().plan(tokens)
    assert not plan.anchors.requires_grad
    assert plan.apply(tokens).features.requires_grad


def test_autocast_does_not_change_a_plan() -> None:
    tokens = visual_tokens(CLIPS[-1])
    plan = STMerge().plan(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert same(plan, STMerge().plan(tokens))


class ProductDtypes(TorchDispatchMode):
    """The dtypes in which matrix products were computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.bmm.default, torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.seen.add(args[-1].dtype)
        return func(*args, **(kwargs or {}))


def test_where_fp32_products_may_be_rounded_they_are_computed_in_fp64() -> None:
    # Not every CPU rounds them when it may, so the dtype is looked at and not only the plan.
    tokens = visual_tokens(CLIPS[-1])
    with ProductDtypes() as products:
        plan = STMerge().plan(tokens)
    assert torch.float32 in products.seen
    torch.set_float32_matmul_precision("medium")
    try:
        with ProductDtypes() as products:
            assert same(plan, STMerge().plan(tokens))
        assert products.seen == {torch.float64}
        assert fp32_products_are_rounded(torch.device("cuda"))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert not fp32_products_are_rounded(torch.device("cpu"))


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 1, 9), (7, 1, 1), (1, 6, 6), (2, 1, 1), (3, 17, 1)])
def test_any_grid(grid: tuple[int, int, int]) -> None:
    clip = random_clip(grid, 3, 1)
    for ratio in (0.01, 0.5, 1.0):
        plan = STMerge(0.3, 0.5, ratio).plan(visual_tokens(clip)).validate()
        assert (
            plan.anchors.tolist()
            == reference_partition(clip.features, grid, 0.3, 0.5, ratio, distance_scale="relative").anchors
        )


def test_a_zero_token_has_cosine_zero_and_identical_ones_one() -> None:
    features = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    grid = GridFeatures(features.reshape(6, 2), 3)
    [whole] = grid.similarity([(0, 3)]).tolist()
    assert whole == pytest.approx([1.0, 0.0], abs=1e-7)
    single, rest = grid.similarity([(0, 1), (1, 3)]).tolist()
    assert single == [-np.inf, -np.inf]
    assert rest == pytest.approx([1.0, 0.0], abs=1e-7)


def test_identical_frames_are_static_even_at_tau_one() -> None:
    frame = torch.randn(1, 20, 300, generator=torch.Generator().manual_seed(0))
    tokens = VisualTokens(frame.expand(9, 20, 300).reshape(180, 300), (9, 4, 5))
    plan = STMerge(tau=1.0, min_tokens=20).plan(tokens)
    assert plan.anchors.tolist() == list(range(20))
    assert torch.equal(plan.assign, torch.arange(20).repeat(9))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    features = torch.ones(8, 4)
    features[5, 2] = value
    with pytest.raises(InvalidValueError, match="must be finite"):
        STMerge().plan(VisualTokens(features, (2, 2, 2)))


def test_features_without_components_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one component"):
        STMerge().plan(VisualTokens(torch.ones(8, 0), (2, 2, 2)))


def test_it_must_come_first() -> None:
    tokens = visual_tokens(CLIPS[0])
    fewer = TokenPlan.keeping(torch.arange(5), len(tokens)).apply(tokens)
    assert STMerge.needs_full_grid
    with pytest.raises(InvalidValueError, match=r"STMerge must come first.*got 5"):
        STMerge().plan(fewer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("tau", "cluster_ratio", "temporal_segment_ratio") for value in (0.0, 1.1, -0.5)),
        *((name, value) for name in ("tau", "cluster_ratio") for value in (True, "0.5", float("nan"), None)),
        *((name, value) for name in ("neighbours", "min_tokens") for value in (0, -1, 2.0, True, None)),
        ("distance_scale", "cosine"),
        ("distance_scale", None),
        ("keep_ratio", 0.0),
        ("keep_ratio", 1.5),
        ("keep", 0),
        ("keep", 3.0),
        ("keep", True),
    ],
)
def test_parameters_that_are_not_allowed_are_named(name: str, value: object) -> None:
    with pytest.raises(BudgetError if name.startswith("keep") else InvalidValueError, match=name) as caught:
        STMerge(**{name: value})
    assert repr(value) in str(caught.value)


def test_two_budgets_are_refused() -> None:
    with pytest.raises(BudgetError, match="at most one of keep_ratio"):
        STMerge(keep_ratio=0.5, keep=7)


def test_it_is_a_merger_and_a_frozen_dataclass() -> None:
    operator = STMerge(1, 1, 1)
    assert isinstance(operator, TokenMerger)
    assert operator.budget is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        operator.tau = 0.5  # type: ignore[misc]
    with pytest.raises(TypeError):
        STMerge(0.8, 0.5, 0.25, 0.5)  # type: ignore[misc]
