# SPDX-License-Identifier: Apache-2.0
"""The micro-benchmark of the operators: what runs, what is counted, what is compared; never how long it takes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import tokenprune as tp
from tokenprune.bench.speed import operators, operators_request
from tokenprune.bench.speed.arithmetic import Attention, DecoderShape, prefill_flops
from tokenprune.bench.speed.clock import timed
from tokenprune.bench.speed.content import scene_features
from tokenprune.bench.speed.dispatched import count_dispatched
from tokenprune.bench.speed.figures import Figure
from tokenprune.bench.speed.operators import measure_operators
from tokenprune.bench.speed.operators_clip import Clip
from tokenprune.bench.speed.operators_prefill import LAYER, DecoderLayer
from tokenprune.bench.speed.operators_request import OperatorsRequest
from tokenprune.bench.speed.operators_result import OperatorsResult
from tokenprune.bench.speed.operators_shares import prefill_seconds
from tokenprune.bench.speed.operators_subjects import DIRECT, FRAME_PAIRS, MERGE, PLAN, subjects_of
from tokenprune.bench.speed.scoring import AttentionShape, random_view
from tokenprune.bench.speed.subject import Run, Subject
from tokenprune.errors import InvalidValueError
from tokenprune.scorers import SCORERS

SMALL = AttentionShape(heads=4, kv_heads=2, head_dim=8, text_before=3, text_rows=5)
REQUEST = OperatorsRequest(
    frames=(8, 4), rows=4, columns=5, width=64, rounds=2, warmup=1, attention=SMALL, intermediate=96, layers=3
)
CPU = torch.device("cpu")
METHODS = {f"{each.name}({each.variant}{', ' * bool(each.variant)}keep_ratio=0.25): plan" for each in tp.methods()}
EACH = 12 + len(METHODS)
"""Subjects of a clip."""


@pytest.fixture(scope="module")
def result() -> OperatorsResult:
    return measure_operators(REQUEST)


def test_every_subject_on_every_clip(result: OperatorsResult) -> None:
    assert [case.grid for case in result.cases] == [(4, 4, 5), (8, 4, 5)]
    assert [case.tokens for case in result.cases] == [80, 160]
    for case in result.cases:
        names = [cost.name for cost in case.subjects]
        assert len(names) == len(set(names)) == EACH
        assert {name.split(" of one ")[0] for name in names} > METHODS
        assert {"FastV(keep_ratio=0.25): plan", "STTM(layer=None, keep_ratio=0.25): plan"} < set(names)
        assert {"SparseVLM(keep_ratio=0.25): plan of one stage", "TOVA(keep_ratio=0.25): plan of one layer"} < set(
            names
        )
        assert {PLAN, LAYER, MERGE, DIRECT, FRAME_PAIRS, *(f"scorer {name}" for name in SCORERS)} < set(names)
        assert all(len(cost.seconds.values) == 2 and min(cost.seconds.values) > 0 for cost in case.subjects)
    assert result.unreachable == {}


def test_tokens_kept_are_those_of_the_plans(result: OperatorsResult) -> None:
    for case in result.cases:
        kept = {cost.name: cost.tokens_kept for cost in case.subjects}
        tokens = tp.VisualTokens(scene_features(case.grid, 64, static=0.5), case.grid)
        expected = tp.STMerge().plan(tokens).kept
        same = (PLAN, MERGE, DIRECT, "TokenPlan: validate", "TokenPlan: apply")
        assert {kept[name] for name in same} == {expected}
        assert {kept[name] for name in kept if "keep_ratio=0.25" in name} == {case.tokens // 4}
        assert {kept[name] for name in kept if "keep_ratio=0.4" in name} == {case.tokens * 2 // 5}
        assert {kept[name] for name in kept if "scorer" in name or name == LAYER} == {None}
        assert case.same_tokens is True


def test_operations_are_those_of_one_run(result: OperatorsResult) -> None:
    case = result.cases[1]
    counted = {cost.name: cost.dispatched for cost in case.subjects}
    tokens = tp.VisualTokens(scene_features(case.grid, 64, static=0.5), case.grid)
    assert counted[PLAN] == count_dispatched(lambda: tp.STMerge().plan(tokens), CPU)[1]
    assert counted[PLAN].total > 10
    assert counted["UniformSelect(keep_ratio=0.25): plan"].total_waits == 0
    assert all(counted[f"scorer {name}"].total_waits == 0 for name in SCORERS)
    assert counted[DIRECT].total_waits > 0


def test_stage_1_is_compared_run_by_run(result: OperatorsResult) -> None:
    for case in result.cases:
        seconds = {cost.name: cost.seconds for cost in case.subjects}
        assert case.ratios == {f"{MERGE} / {DIRECT}": seconds[MERGE].over(seconds[DIRECT])}


def test_growth_is_the_time_a_frame_of_the_longest_clip_over_the_others() -> None:
    seconds = {
        (4, PLAN): Figure((0.5, 1.0)),
        (4, FRAME_PAIRS): Figure((0.1, 0.2)),
        (16, PLAN): Figure((2.0, 8.0)),
        (16, FRAME_PAIRS): Figure((0.4, 1.6)),
    }
    (growth,) = operators._growth((4, 16), seconds)
    assert (growth.frames, growth.over) == (16, 4)
    assert growth.per_frame.values == pytest.approx((1.0, 2.0))
    assert growth.per_frame_apart.values == pytest.approx((1.0, 2.0))
    assert operators._growth((4,), seconds) == []
    assert operators._growth((1, 4), seconds) == []  # one frame has no pairs, and so no such step


def test_the_result_is_json(result: OperatorsResult) -> None:
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (data["format"], data["version"]) == ("tokenprune.speed.operators", 1)
    assert data["setting"]["frames"] == [4, 8]
    assert (data["setting"]["device"], data["setting"]["dtype"]) == ("cpu", "float32")
    assert data["machine"]["torch"] == torch.__version__
    first = data["cases"][0]["subjects"][0]
    assert first["name"] == PLAN
    assert first["seconds_per_frame"] == pytest.approx(first["seconds"]["median"] / 4)
    assert len(first["seconds"]["runs"]) == 2
    assert first["operations"] > first["host_waits"] == sum(first["waits"].values())
    assert [(growth["frames"], growth["over"]) for growth in data["growth"]] == [(8, 4)]


def test_the_direct_implementation_can_be_left_out_of_large_clips() -> None:
    result = measure_operators(replace(REQUEST, rounds=1, warmup=0, direct_up_to=4))
    short, long = ({cost.name for cost in case.subjects} for case in result.cases)
    assert short - long == {DIRECT}
    assert [case.same_tokens for case in result.cases] == [True, None]
    assert [bool(case.ratios) for case in result.cases] == [True, False]


def test_out_of_memory_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    def subjects(clip: Clip, *, direct: bool, layer: DecoderLayer | None) -> dict[str, Subject]:
        found = subjects_of(clip, direct=direct, layer=layer)
        return found | {DIRECT: Subject(lambda: fail)} if clip.grid[0] == 8 else found

    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(operators, "subjects_of", subjects)
    result = measure_operators(REQUEST, lambda done, total: steps.append((done, total)))
    assert result.unreachable == {f"8 frames: {DIRECT}": "out of memory: no room"}
    assert [len(case.subjects) for case in result.cases] == [EACH, EACH - 1]
    assert [case.same_tokens for case in result.cases] == [True, None]
    assert {total for _, total in steps} == {2 * EACH * 4}
    done = [done for done, _ in steps]
    assert done == sorted(set(done))
    assert done[-1] == 2 * EACH * 4


def test_shares_are_of_so_many_layers_run_by_run(result: OperatorsResult) -> None:
    for case in result.cases:
        costs = {cost.name: cost for cost in case.subjects}
        layer = costs[LAYER].seconds.values
        share = costs[PLAN].share
        assert share is not None
        assert share.values == pytest.approx([mine / (3 * its) for mine, its in zip(costs[PLAN].seconds.values, layer)])


def test_a_prefill_that_is_too_slow_is_computed_from_a_shorter_one() -> None:
    seconds = {(4, LAYER): Figure((1.0, 2.0)), (8, PLAN): Figure((1.0, 1.0))}
    shape = DecoderShape(64, (Attention(SMALL.heads, SMALL.kv_heads, SMALL.head_dim),), (96,))
    grows = prefill_flops(shape, [[160]]) / prefill_flops(shape, [[80]])
    assert grows > 2
    assert prefill_seconds(4, seconds, REQUEST) == (Figure((3.0, 6.0)), 4)
    figure, measured = prefill_seconds(8, seconds, REQUEST)
    assert figure is not None
    assert (measured, figure.values) == (4, pytest.approx((3 * grows, 6 * grows)))
    assert prefill_seconds(2, seconds, REQUEST) == (None, None)


def test_the_layer_is_a_decoders() -> None:
    """Causal, of the sizes of the request, and its work is that of the formula."""
    layer = DecoderLayer.random(64, 96, SMALL, CPU, torch.float32)
    states = torch.randn(7, 64, generator=torch.Generator().manual_seed(0))
    out = layer(states)
    assert out.shape == states.shape
    torch.testing.assert_close(layer(states[:4]), out[:4])
    assert not torch.equal(layer(torch.cat([states[:3] + 1, states[3:]]))[4:], out[4:])
    weights = sum(weight.numel() for weight in layer.weights)
    pairs = DecoderShape(64, (Attention(SMALL.heads, SMALL.kv_heads, SMALL.head_dim),), (96,))
    assert prefill_flops(pairs, [[1]]) == 2 * weights + 4 * SMALL.heads * SMALL.head_dim


def test_without_a_prefill_there_are_no_shares() -> None:
    result = measure_operators(replace(REQUEST, frames=(2,), rounds=1, warmup=0, layers=0))
    assert {cost.share for cost in result.cases[0].subjects} == {None}
    assert LAYER not in {cost.name for cost in result.cases[0].subjects}


def test_what_takes_too_long_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the clip where its first run was slow; on a longer one it is not even begun, unless a second run was fast."""
    ran: list[tuple[str, int]] = []

    def taking(name: str, frames: int, seconds: float) -> Subject:
        def ready() -> Run:
            took = 1.0 if name == "cold" and ran.count((name, 2)) else seconds  # its first run also made something
            ran.append((name, frames))
            return lambda: torch.tensor([took])

        return Subject(ready)

    def subjects(clip: Clip, *, direct: bool, layer: DecoderLayer | None) -> dict[str, Subject]:
        found = {"fast": 1.0, "cold": 40.0, "slower": 40.0, "slow": 150.0, LAYER: 150.0}
        return {name: taking(name, clip.grid[0], seconds) for name, seconds in found.items()}

    def pretended(device: torch.device, call: Callable[[], Any]) -> tuple[Any, float]:
        result = call()
        return result, float(result[0][0] if isinstance(result, tuple) else result[0])

    monkeypatch.setattr(operators_request, "timed", pretended)
    monkeypatch.setattr(operators, "subjects_of", subjects)
    result = measure_operators(replace(REQUEST, limit=60.0, warmup=0, frames=(2, 8)))
    assert [[cost.name for cost in case.subjects] for case in result.cases] == [
        ["fast", "cold", "slower"],
        ["fast", "cold"],
    ]
    assert result.unreachable == {
        "2 frames: slow": "its first run took 150 s",
        f"2 frames: {LAYER}": "its first run took 150 s",
        f"8 frames: {LAYER}": "would take 600 s at least, by the shorter clip",
        "8 frames: slow": "would take 600 s at least, by the shorter clip",
        "8 frames: slower": "would take 160 s at least, by the shorter clip",
    }
    assert ran.count(("slow", 2)) == 1
    assert {("slow", 8), ("slower", 8)}.isdisjoint(ran)


def test_no_run_is_given_what_another_one_used() -> None:
    """A plan or tokens that remember what they computed would make every run but the first look cheap."""
    grid = (4, 4, 5)
    clip = Clip(scene_features(grid, 64, static=0.5), grid, SMALL)
    layer = DecoderLayer.random(64, 96, SMALL, CPU, torch.float32)
    for name, subject in subjects_of(clip, direct=True, layer=layer).items():
        first, second = (count_dispatched(subject.ready(), CPU)[1] for _ in range(2))
        assert first == second, name


def test_shorter_clips_are_the_beginning_of_the_longest() -> None:
    clips = operators._clips(REQUEST)
    assert clips[4].features.data_ptr() == clips[8].features.data_ptr()
    assert torch.equal(clips[4].features, scene_features((4, 4, 5), 64, static=0.5))


@pytest.mark.parametrize(
    "change",
    [
        {"frames": ()},
        {"frames": (4, 4)},
        {"frames": (0, 4)},
        {"rows": 0},
        {"columns": 0},
        {"width": 0},
        {"rounds": 0},
        {"warmup": -1},
        {"direct_up_to": -1},
        {"intermediate": 0},
        {"layers": -1},
        {"limit": 0.0},
        {"limit": float("nan")},
        {"clock": "sand"},
        {"static": 1.01},
        {"device": torch.device("meta")},
    ],
)
def test_bad_values_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidValueError):
        replace(REQUEST, **change)  # type: ignore[arg-type]


def test_processor_time_is_that_of_one_thread_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    request = replace(REQUEST, clock="processor")
    _, slept = request.timed(lambda: time.sleep(0.2))
    assert slept < 0.1
    assert replace(REQUEST, clock="wall").timed(lambda: time.sleep(0.2))[1] >= 0.2
    with pytest.raises(InvalidValueError, match="got cuda"):
        replace(request, device=torch.device("cuda"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(InvalidValueError, match="one thread"):
        replace(REQUEST, clock="processor")


def test_the_view_is_laid_out_like_a_prompt() -> None:
    view = random_view(20, SMALL, device=CPU)
    assert view.queries().shape == (4, 5, 8)
    assert view.keys().shape == (2, 28, 8)
    assert view.keys().dtype == view.queries(rotated=False).dtype == torch.bfloat16
    assert view.visual_columns.tolist() == list(range(3, 23))
    assert view.text_rows.tolist() == list(range(23, 28))
    assert view.visible(slice(0, 5)).sum(dim=1).tolist() == [24, 25, 26, 27, 28]


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance() -> None:
    view = random_view(20, SMALL, device=CPU, dtype=torch.float64)
    still, turned = view.keys(rotated=False), view.keys(rotated=True)
    torch.testing.assert_close(still.norm(dim=-1), turned.norm(dim=-1))
    assert torch.equal(still[:, 0], turned[:, 0])
    assert not torch.allclose(still[:, 1:], turned[:, 1:])


def test_timing_gives_back_what_the_call_did() -> None:
    result, seconds = timed(CPU, lambda: "done")
    assert result == "done"
    assert seconds >= 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_same_tokens_are_kept() -> None:
    request = replace(REQUEST, device=torch.device("cuda"), rounds=1, warmup=0)
    here, there = measure_operators(replace(REQUEST, rounds=1, warmup=0)), measure_operators(request)
    for mine, its in zip(here.cases, there.cases):
        assert [cost.tokens_kept for cost in mine.subjects] == [cost.tokens_kept for cost in its.subjects]
        assert its.same_tokens is True
