# SPDX-License-Identifier: Apache-2.0
"""``tokenprune run``: answers, numbers, and one line for everything that can be wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from qwen25vl.tiny import LAYERS, save_tiny
from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.cli.app import app

BUNNY = Path(__file__).parents[1] / "data" / "bigbuckbunny.mp4"

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def invoke(
        *options: str, video: str | Path = BUNNY, question: str = "What?", model: str | Path | None = checkpoint
    ):
        named = [] if model is None else ["--model", str(model)]
        short = [] if "--max-new-tokens" in options else ["--max-new-tokens", "3"]
        return CliRunner().invoke(app, ["run", str(video), question, *named, *short, *options])

    return invoke


def without_frames() -> bytes:
    """The real clip, cut off before its first frame ends."""
    data = BUNNY.read_bytes()
    return data[: data.index(b"mdat") + 100]


def result_of(outcome: Any) -> dict[str, Any]:
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


def failed(outcome: Any, code: int, *said: str) -> None:
    assert outcome.exit_code == code, outcome.output
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1, outcome.stderr
    for part in ("tokenprune: ", *said):
        assert part in lines[0]
    assert outcome.stdout == ""


# What it prints


def test_json(run: Run, checkpoint: Path) -> None:
    result = result_of(run("--json", "--frames", "8"))
    assert result["model"] == str(checkpoint)
    assert (result["preset"], result["pipeline"]) == ("recommended", tp.preset("recommended").to_dict())
    assert (result["frames"], result["sampled_fps"]) == (8, pytest.approx(8 / 66 * 12.5))
    assert 1 <= result["new_tokens"] <= 3
    assert set(result["seconds"]) == {"vision", "prefill", "decode"}
    assert all(seconds > 0 for seconds in result["seconds"].values())
    report = result["report"]
    assert [stage["operator"] for stage in report["stages"]] == ["Cover"]
    assert report["visual_retained"][0] < 0.6
    assert report["kv_bytes"] < report["kv_bytes_unpruned"]
    assert "plain" not in result


def test_table(run: Run) -> None:
    outcome = run("--frames", "8")
    assert outcome.exit_code == 0, outcome.output
    for part in ("visual tokens", "Cover before the LLM", "KV cache", " of ", "prefill"):
        assert part in outcome.stdout
    assert outcome.stderr == ""


def test_table_of_two_stages(run: Run) -> None:
    outcome = run("--frames", "8", "--preset", "default")
    for part in ("STMerge before the LLM", "AttnPrune after layer 1"):
        assert part in outcome.stdout


def test_compare(run: Run) -> None:
    result = result_of(run("--compare", "--json", "--preset", "baseline", "--max-new-tokens", "8"))
    assert result["plain"]["answer"] == result["answer"]
    assert result["same_answer"] is True
    assert result["plain"]["report"] is None
    assert result["report"]["visual_retained"] == [1.0]
    pruned = result_of(run("--compare", "--json", "--keep-ratio", "0.01", "--layer", "1", "--max-new-tokens", "8"))
    assert pruned["plain"]["answer"] == result["answer"] != pruned["answer"]
    assert pruned["same_answer"] is False


def test_compare_side_by_side(run: Run) -> None:
    outcome = run("--compare")
    assert outcome.exit_code == 0, outcome.output
    header = outcome.stdout.splitlines()[0].split()
    assert header == ["plain", "pruned", "ratio"]
    assert outcome.stdout.splitlines()[1].startswith("answer")


def test_a_pruned_run_after_a_plain_one_leaves_nothing_behind(run: Run) -> None:
    assert result_of(run("--json"))["answer"] == result_of(run("--json", "--compare"))["answer"]


def test_the_frames_asked_for(run: Run) -> None:
    assert result_of(run("--json", "--fps", "1"))["frames"] == 4  # 5.28 seconds, in pairs
    assert result_of(run("--json"))["frames"] == 10


def test_system_prompt_and_pixels_reach_the_model(run: Run) -> None:
    plain = result_of(run("--json", "--frames", "4"))["report"]
    small = result_of(run("--json", "--frames", "4", "--max-pixels", "1568"))["report"]
    longer = result_of(run("--json", "--frames", "4", "--system", "Be brief." * 9))["report"]
    assert small["visual_tokens"][0] < plain["visual_tokens"][0]
    assert longer["prompt_tokens"][0] > plain["prompt_tokens"][0]


def test_eager_attention_and_bfloat16(run: Run) -> None:
    assert result_of(run("--json", "--attn", "eager", "--dtype", "bfloat16", "--device", "cpu"))["new_tokens"] >= 1


# Which pipeline


@pytest.mark.parametrize("name", ["conservative", "aggressive", "stage1_only", "stage2_only", "baseline"])
def test_presets(run: Run, name: str) -> None:
    result = result_of(run("--json", "--preset", name))
    assert (result["preset"], result["pipeline"]) == (name, tp.preset(name).to_dict())


def test_pipeline_file(run: Run, tmp_path: Path) -> None:
    chosen = tp.Pipeline([tp.AttnPrune(layer=2, keep=3)])
    chosen.save(tmp_path / "mine.json")
    result = result_of(run("--json", "--pipeline", str(tmp_path / "mine.json")))
    assert result["pipeline"] == chosen.to_dict()
    assert result["report"]["stages"][0]["visual_after"] == [3]


def test_custom_values_are_laid_over_the_default(run: Run) -> None:
    result = result_of(run("--json", "--keep-ratio", "0.5", "--layer", "2", "--cluster-ratio", "0.7"))
    expected = tp.Pipeline([tp.STMerge(tau=0.8, cluster_ratio=0.7, temporal_segment_ratio=0.25),
                            tp.AttnPrune(layer=2, keep_ratio=0.5)])  # fmt: skip
    assert (result["preset"], result["pipeline"]) == ("custom", expected.to_dict())
    assert result_of(run("--json", "--layer", "0.5"))["report"]["stages"][1]["layer"] == LAYERS // 2
    default = result_of(run("--json", "--preset", "custom"))
    assert default["pipeline"] == tp.preset("default").to_dict()


@pytest.mark.parametrize(
    "options",
    [
        ("--preset", "default", "--tau", "0.8"),
        ("--preset", "default", "--pipeline", "x.json"),
        ("--pipeline", "x.json", "--layer", "2"),
    ],
)
def test_only_one_way_to_choose_a_pipeline(run: Run, options: tuple[str, ...]) -> None:
    failed(run(*options), 2, "choose one of --preset")


def test_unknown_preset(run: Run) -> None:
    failed(run("--preset", "fastest"), 2, "'fastest'", "conservative")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[(name, value) for name in ("cluster", "segment", "keep") for value in ("0", "-0.5", "1.5", "nan", "inf")],
        *[("tau", value) for value in ("1.5", "-1.5", "nan", "inf")],
    ],
)
def test_ratios_out_of_range(run: Run, option: str, value: str) -> None:
    flag = "--tau" if option == "tau" else f"--{option}-ratio"
    argument = {"tau": "tau", "segment": "temporal_segment_ratio"}.get(option, f"{option}_ratio")
    failed(run(flag, value), 2, argument, value)


@pytest.mark.parametrize("value", ["-1", "1.0", "10.0", "0.0", "nan", "two", "1e3"])
def test_layers_out_of_range(run: Run, value: str) -> None:
    failed(run("--layer", value), 2, "layer")


def test_layer_beyond_the_depth(run: Run) -> None:
    failed(run("--layer", str(LAYERS)), 1, f"layer {LAYERS}", f"{LAYERS} decoder layers")


def pipeline_json(operators: str, version: int = 1) -> str:
    return f'{{"format": "tokenprune.pipeline", "version": {version}, "operators": {operators}}}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("", "cannot read"),
        ("[1, 2", "cannot read"),
        ("[]", "format"),
        (pipeline_json("[]", version=99), "99"),
        (pipeline_json("{}"), "operators"),
        (pipeline_json('[{"operator": "Magic"}]'), "'Magic'"),
        (pipeline_json('[{"operator": "AttnPrune", "keep_ratio": "x"}]'), "keep_ratio"),
        (pipeline_json('[{"operator": "AttnPrune", "keep_ratio": 0}]'), "keep_ratio"),
        (pipeline_json('[{"operator": "AttnPrune", "keep_ratio": NaN}]'), "NaN"),
        (pipeline_json('[{"operator": "STMerge", "size": 1}]'), "'size'"),
    ],
)
def test_bad_pipeline_files(run: Run, tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "pipeline.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    failed(run("--pipeline", str(path)), 1, str(path), said)


# Which video


def test_bad_videos(run: Run, tmp_path: Path) -> None:
    empty, text, cut = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "cut.mp4"
    empty.touch()
    text.write_text("not a video")
    cut.write_bytes(without_frames())
    failed(run(video=tmp_path / "none.mp4"), 1, "no such video file")
    failed(run(video=empty), 1, "is empty", str(empty))
    failed(run(video=text), 1, "as a video", str(text))
    failed(run(video=cut), 1, "cut off", str(cut))
    failed(run(video=tmp_path), 1, "not a video file")


def test_wrong_frames_and_questions(run: Run) -> None:
    failed(run("--frames", "4", "--fps", "1"), 2, "--frames and --fps")
    failed(run("--fps", "nan"), 2, "--fps")
    failed(run("--fps", "-1"), 2, "--fps")
    failed(run(question="  "), 2, "QUESTION")
    failed(run("--max-pixels", "10"), 1, "max_pixels")
    failed(run(question="What is <|video_pad|>?"), 1, "control token")
    assert run("--frames", "0").exit_code == 2
    assert run("--max-new-tokens", "0").exit_code == 2


# Which model


def test_bad_models(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    failed(run(model=tmp_path / "none"), 1, "no such checkpoint")
    failed(run(model=tmp_path), 1, "config.json")
    failed(run(model=BUNNY), 1, "is a file")
    failed(run(model="nobody/nothing"), 1, "nobody/nothing")

    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama"}')
    failed(run(model=other), 1, "no adapter", "'llama'", "qwen25vl")

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    failed(run(model=broken), 1, "cannot read the configuration")

    weightless = shutil.copytree(checkpoint, tmp_path / "weightless")
    (weightless / "model.safetensors").unlink()
    failed(run(model=weightless), 1, "cannot load", str(weightless))

    cut = shutil.copytree(checkpoint, tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    failed(run(model=cut), 1, "cannot load", str(cut))

    failed(run("--dtype", "int8"), 2, "dtype")
    failed(run("--device", "abacus"), 2, "device")
    failed(run("--attn", "telepathy"), 1, "telepathy")
    gpus = torch.cuda.device_count()
    failed(run("--device", f"cuda:{gpus}"), 1, f"torch sees {gpus} GPUs")


def test_missing_weights_are_not_made_up(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    partial = shutil.copytree(checkpoint, tmp_path / "partial")
    weights = load_file(partial / "model.safetensors")
    lost = next(name for name in weights if name.endswith("layers.1.self_attn.k_proj.weight"))
    del weights[lost]
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    outcome = run(model=partial)
    assert outcome.exit_code == 1
    assert "is incomplete: 1 weights are missing" in outcome.stderr.splitlines()[-1]
    assert outcome.stdout == ""


def test_the_shipped_model_says_so(run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune_qwen25vl.family.shipped_checkpoint", lambda: checkpoint)
    monkeypatch.setattr("tokenprune_qwen25vl.family.demo_clip", lambda: BUNNY)
    outcome = run("--json", video="demo", model=None)
    result = result_of(outcome)
    assert (result["model"], result["video"]) == ("shipped", "demo")
    assert "small model that ships" in outcome.stderr.splitlines()[0]


def test_an_installation_without_weights(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise FileNotFoundError("no shipped weights")

    monkeypatch.setattr("tokenprune_qwen25vl.family.shipped_checkpoint", missing)
    outcome = run(model=None)
    assert outcome.exit_code == 1
    assert outcome.stderr.splitlines()[1:] == ["tokenprune: no shipped weights, or name a model"]


def test_without_any_adapter(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenprune.plugins import reset_plugins

    monkeypatch.setenv("TOKENPRUNE_PLUGINS", "")
    reset_plugins()
    try:
        failed(run(), 1, "no adapter knows", "none is installed")
    finally:
        monkeypatch.undo()
        reset_plugins()


# Errors as JSON, and in full


@pytest.mark.parametrize(
    ("options", "code", "kind"),
    [(("--preset", "none"), 2, "UsageError"), (("--layer", "99"), 1, "InvalidValueError")],
)
def test_errors_as_json(run: Run, options: tuple[str, ...], code: int, kind: str) -> None:
    outcome = run("--json", *options)
    assert outcome.exit_code == code
    assert json.loads(outcome.stdout)["error"]["type"] == kind
    assert len(outcome.stderr.strip().splitlines()) == 1


def test_debug_shows_the_traceback(run: Run, tmp_path: Path) -> None:
    outcome = run("--debug", video=tmp_path / "none.mp4")
    assert outcome.exit_code == 1
    assert "Traceback" in outcome.stderr
    assert outcome.stderr.splitlines()[-1].startswith("tokenprune: no such video file")


# The real entry point


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from tokenprune.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
    )


def test_the_real_script_answers(checkpoint: Path) -> None:
    done = script("run", str(BUNNY), "What?", "--model", str(checkpoint), "--max-new-tokens", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"]["visual_retained"][0] < 1
    assert done.stderr == ""


def test_the_real_script_fails_on_one_line(checkpoint: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(without_frames())
    done = script("run", str(bad), "What?", "--model", str(checkpoint))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tokenprune: video file is cut off")
    assert len(done.stderr.splitlines()) == 1


def test_a_damaged_video_is_answered_and_what_was_lost_is_said(run: Run, tmp_path: Path) -> None:
    data = BUNNY.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    outcome = run("--json", "--frames", "4", video=path)
    damage = result_of(outcome)["damage"]
    assert damage["cut_off"]
    assert damage["found"] + damage["missing"] == 66
    lines = [line for line in outcome.stderr.splitlines() if "cut.mp4" in line]
    assert len(lines) == 1
    assert "the file is cut off" in lines[0]
    assert result_of(run("--json", "--frames", "4"))["damage"] is None


def test_an_address_is_refused_with_the_remedy(run: Run) -> None:
    failed(run(video="https://example.org/video.mp4"), 1, "download it first")


def test_a_folder_of_pictures_is_a_video(run: Run, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for number in range(6):
        image.new("RGB", (84, 56), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    assert result_of(run("--json", video=tmp_path))["frames"] == 6


def test_a_long_read_says_how_long_it_still_takes() -> None:
    from tokenprune.cli._video import reading

    said: list[str] = []
    clock = iter([0.0, 0.5, 4.0])
    told = reading(said.append, lambda: next(clock))
    told(1, 8)
    told(2, 8)
    assert said == ["reading the video: 1 of 8 frames", "reading the video: 2 of 8 frames, 12 s left"]
