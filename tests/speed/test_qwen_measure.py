# SPDX-License-Identifier: Apache-2.0
"""A whole measurement: who is in it, what is compared with what, traces, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from qwen25vl.tiny import LAYERS, save_tiny

import tokenprune as tp
from tokenprune.bench.model_speed import measure as measuring
from tokenprune.bench.model_speed import shapes
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.bench.speed.result import SpeedResult, SpeedRow
from tokenprune.errors import InvalidValueError
from tokenprune_qwen25vl.bench_plugin import tokenprune_speed

PIPELINES = {
    "both": tp.Pipeline([tp.STMerge(), tp.AttnPrune(layer=1, keep_ratio=0.5)]),
    "merge": tp.Pipeline([tp.STMerge()]),
    "baseline": tp.Pipeline(),
}
GRID = (4, 2, 3)
COMPARED = {"llm_prefill / plain", "decode tokens/s / plain", "answer / plain"}


@pytest.fixture(scope="module")
def request_() -> SpeedRequest:
    return SpeedRequest(PIPELINES, grid=GRID, text=6, new_tokens=2, rounds=2, warmup=0, device="cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def result(request_: SpeedRequest, saved: str) -> SpeedResult:
    return tokenprune_speed().measure(replace(request_, model=saved, batch=2))


def row_of(result: SpeedResult, name: str) -> SpeedRow:
    return next(row for row in result.rows if row.name == name)


def test_who_is_measured(result: SpeedResult) -> None:
    assert [(row.name, row.role) for row in result.rows] == [
        ("plain", "plain"),
        ("both", "pipeline"),
        ("lower bound: both", "lower bound"),
        ("eager baseline: both", "eager baseline"),
        ("merge", "pipeline"),
        ("lower bound: merge", "lower bound"),
        ("baseline", "pipeline"),
    ]
    assert result.unreachable == {}


def test_figures_of_every_round(result: SpeedResult) -> None:
    answered = {"llm_prefill_seconds", "time_to_first_token_seconds", "answer_seconds", "decode_tokens_per_second"}
    for row in result.rows:
        assert set(row.figures) == ({"llm_prefill_seconds"} if row.role == "lower bound" else answered), row.name
        assert all(len(figure.values) == 2 and min(figure.values) > 0 for figure in row.figures.values())
    assert len(result.vision["seconds"].values) == 2
    for row in result.rows:
        if row.role != "lower bound":
            pairs = zip(row.figures["time_to_first_token_seconds"].values, result.vision["seconds"].values)
            assert all(first > vision for first, vision in pairs)


def test_what_is_compared(result: SpeedResult) -> None:
    def compared(name: str) -> set[str]:
        return set(row_of(result, name).ratios) - {"peak_memory / plain"}

    assert compared("plain") == set()
    assert compared("both") == compared("merge") == {*COMPARED, "llm_prefill / lower bound"}
    assert compared("baseline") == compared("eager baseline: both") == COMPARED
    assert compared("lower bound: both") == {"llm_prefill / plain"}
    plain, both, lower = (row_of(result, name) for name in ("plain", "both", "lower bound: both"))
    mine = both.figures["llm_prefill_seconds"]
    assert both.ratios["llm_prefill / lower bound"] == mine.over(lower.figures["llm_prefill_seconds"])
    assert both.ratios["llm_prefill / plain"] == mine.over(plain.figures["llm_prefill_seconds"])
    assert both.ratios["answer / plain"] == both.figures["answer_seconds"].over(plain.figures["answer_seconds"])
    for row in result.rows:
        assert (row.peak_memory_bytes is None) == (plain.peak_memory_bytes is None)
        has_ratio = row.role != "plain" and plain.peak_memory_bytes is not None
        assert ("peak_memory / plain" in row.ratios) == has_ratio


def test_speedups_stand_beside_their_ceilings(result: SpeedResult) -> None:
    plain = row_of(result, "plain")
    for row in result.rows:
        with_answer = row.role in ("pipeline", "eager baseline")
        assert set(row.speedups) == ({"time_to_first_token", "answer"} if with_answer else set())
        for name, speedup in row.speedups.items():
            quantity = f"{name}_seconds"
            share = plain.figures["llm_prefill_seconds"].median / plain.figures[quantity].median
            assert speedup.ceiling == pytest.approx(1 / (1 - share))
            assert speedup.factor == plain.figures[quantity].over(row.figures[quantity])


def test_tokens_bytes_and_work(result: SpeedResult) -> None:
    length = result.setting["prompt_tokens"]
    plain, both, lower, eager = (
        row_of(result, name) for name in ("plain", "both", "lower bound: both", "eager baseline: both")
    )
    assert plain.layer_tokens == eager.layer_tokens == [[length] * 2] * LAYERS
    assert row_of(result, "baseline").layer_tokens == plain.layer_tokens
    assert [len(rows) for rows in both.layer_tokens] == [2] * LAYERS
    assert max(both.layer_tokens[-1]) < max(both.layer_tokens[0]) < length
    assert lower.layer_tokens == [[max(rows)] * 2 for rows in both.layer_tokens]
    assert both.prefill_flops <= lower.prefill_flops < plain.prefill_flops == eager.prefill_flops
    for row in result.rows:
        assert row.kv_bytes == (None if row.role == "lower bound" else row.kv_bytes_by_formula)
    assert lower.kv_bytes_by_formula == both.kv_bytes_by_formula < plain.kv_bytes_by_formula


def test_operators(result: SpeedResult) -> None:
    merge, prune = row_of(result, "both").operators
    assert (merge.operator, merge.site, merge.layer) == ("STMerge", "before_llm", None)
    assert (prune.operator, prune.site, prune.layer) == ("AttnPrune", "after_layer", 1)
    assert list(merge.visual_before) == [24, 24]
    assert merge.visual_after == prune.visual_before
    assert list(prune.visual_after) == [-(-count // 2) for count in prune.visual_before]
    assert len(merge.seconds.values) == len(prune.seconds.values) == 2
    assert not row_of(result, "baseline").operators
    assert not row_of(result, "plain").operators


def test_the_setting_names_the_model_and_no_path(result: SpeedResult, saved: str) -> None:
    setting = result.setting
    assert setting["model"] == "tiny"
    assert setting["weights"] == "checkpoint"
    assert (setting["grid"], setting["visual_tokens"], setting["batch"], setting["static"]) == ([4, 2, 3], 24, 2, None)
    assert (setting["dtype"], setting["attention"], setting["device"]) == ("float32", "sdpa", "cpu")
    assert (setting["rounds"], setting["warmup"], setting["new_tokens"], setting["text"]) == (2, 0, 2, 6)
    assert setting["parameters"] > 0
    told = json.dumps(result.to_dict(), allow_nan=False)
    assert str(Path(saved).parent) not in told
    assert result.machine["device"] == "cpu"


def test_random_weights_traces_and_progress(
    request_: SpeedRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shapes.Shape(4, 64, 4, 2, 96, 151936, tied=True, sections=(2, 3, 3), tower=shapes.Tower(2, 32, 2, 48, (1,)))
    monkeypatch.setattr(shapes, "SHAPES", {"small": small})
    told: list[tuple[int, int]] = []
    pipelines = {"a/b": PIPELINES["both"], "a b": tp.Pipeline()}
    request = replace(request_, shape="small", pipelines=pipelines, profile=tmp_path / "traces", rounds=1, static=1.0)
    result = tokenprune_speed().measure(request, lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(1, 7)]
    written = {file.name for file in (tmp_path / "traces").iterdir()}
    assert written == {
        "vision-encoder.json", "plain.json", "a-b.json", "lower-bound-a-b.json", "eager-baseline-a-b.json",
        "a-b-2.json",
    }  # fmt: skip
    for file in (tmp_path / "traces").iterdir():
        assert json.loads(file.read_text())["traceEvents"]
    assert (result.setting["model"], result.setting["weights"], result.setting["static"]) == ("small", "random", 1.0)
    assert result.setting["dtype"] == "bfloat16"
    assert row_of(result, "a/b").kv_bytes == row_of(result, "a/b").kv_bytes_by_formula


def test_without_the_eager_baseline(request_: SpeedRequest, saved: str) -> None:
    request = replace(request_, model=saved, eager_baseline=False, pipelines={"both": PIPELINES["both"]}, rounds=1)
    rows = tokenprune_speed().measure(request).rows
    assert [row.role for row in rows] == ["plain", "pipeline", "lower bound"]


def test_what_runs_out_of_memory_is_a_result(
    request_: SpeedRequest, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> Any:
        raise torch.OutOfMemoryError("no more. Details")

    monkeypatch.setattr(measuring, "run_eager_baseline", exhausted)
    monkeypatch.setattr(measuring, "run_pipeline", exhausted)
    request = replace(request_, model=saved, pipelines={"both": PIPELINES["both"]}, rounds=1)
    result = tokenprune_speed().measure(request)
    assert [row.name for row in result.rows] == ["plain"]
    assert set(result.unreachable) == {"both", "lower bound: both", "eager baseline: both"}
    assert result.unreachable["eager baseline: both"] == "out of memory: no more"
    assert "both did not run" in result.unreachable["lower bound: both"]
    monkeypatch.setattr(measuring, "run_plain", exhausted)
    alone = tokenprune_speed().measure(replace(request, pipelines={"baseline": tp.Pipeline()}))
    assert alone.rows == []
    monkeypatch.setattr(measuring, "run_vision", exhausted)
    with pytest.raises(InvalidValueError, match="too large for the vision encoder"):
        tokenprune_speed().measure(request)


def test_the_shipped_checkpoint_is_the_default(request_: SpeedRequest) -> None:
    request = replace(request_, pipelines={"baseline": tp.Pipeline()}, rounds=1)
    result = tokenprune_speed().measure(request)
    assert result.setting["model"] == "shipped"
    assert [row.name for row in result.rows] == ["plain", "baseline"]


@pytest.mark.parametrize("name", ["plain", "vision encoder", "lower bound: x", "eager baseline: both"])
def test_names_of_other_rows_are_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match="named like another row"):
        tokenprune_speed().measure(SpeedRequest({name: tp.Pipeline()}))


def test_what_cannot_be_measured() -> None:
    speed = tokenprune_speed()
    assert list(speed.shapes)[:3] == ["qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen2.5-vl-0.5b-like"]
    assert list(speed.shapes)[3:7] == ["qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b", "qwen3-vl-0.4b-like"]
    assert list(speed.shapes)[7:10] == ["qwen3.5-4b", "qwen3.5-9b", "qwen3.5-0.5b-like"]
    assert list(speed.shapes)[10:] == ["llava-onevision-0.5b", "llava-onevision-7b", "llava-onevision-0.5b-like"]
    with pytest.raises(InvalidValueError, match="shape must be one of"):
        speed.measure(SpeedRequest({}, shape="llama"))
    with pytest.raises(InvalidValueError, match="measured on cpu and cuda"):
        speed.measure(SpeedRequest({}, device="meta"))
    with pytest.raises(InvalidValueError, match="prompt of"):
        speed.measure(SpeedRequest({}, grid=(64, 32, 32), device="cpu"))
    with pytest.raises(tp.InvalidValueError, match="layer"):
        speed.measure(SpeedRequest({"x": tp.Pipeline([tp.AttnPrune(layer=99, keep=1)])}, grid=(1, 1, 2), device="cpu"))


def test_the_hook_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from tokenprune_qwen25vl.bench_plugin import tokenprune_speed; tokenprune_speed().shapes; "
        "sys.exit('transformers' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu(request_: SpeedRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = shapes.Shape(4, 64, 4, 2, 96, 151936, tied=True, sections=(2, 3, 3), tower=shapes.Tower(2, 32, 2, 48, (1,)))
    monkeypatch.setattr(shapes, "SHAPES", {"small": small})
    request = replace(request_, shape="small", device="cuda", batch=2, profile=tmp_path)
    result = tokenprune_speed().measure(request)
    assert result.unreachable == {}
    assert (result.setting["device"], result.setting["dtype"]) == ("cuda", "bfloat16")
    assert "capability" in result.machine
    parameters = result.setting["parameters"]
    for row in result.rows:
        assert row.peak_memory_bytes is not None
        assert row.peak_memory_bytes > 2 * parameters
        assert all(min(figure.values) > 0 for figure in row.figures.values())
        assert row.kv_bytes == (None if row.role == "lower bound" else row.kv_bytes_by_formula)
    trace = json.loads((tmp_path / "both.json").read_text())["traceEvents"]
    assert any(event.get("cat") == "kernel" for event in trace)
