# SPDX-License-Identifier: Apache-2.0
"""``tokenprune sweep``: every point once, whatever interrupts it; results of other inputs are never mixed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from qwen25vl.tiny import LAYERS, save_tiny
from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.cli.app import app

BUNNY = Path(__file__).parents[1] / "data" / "bigbuckbunny.mp4"
SMALL = ("--tau", "0.7,0.9", "--cluster-ratio", "0.5", "--segment-ratio", "0.25,0.5")

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def invoke(*options: str, video: str | Path = BUNNY, question: str = "What?", model: Path = checkpoint) -> Any:
        short = ("--frames", "6", "--max-new-tokens", "3", "--model", str(model))
        return CliRunner().invoke(app, ["sweep", str(video), question, *short, *options])

    return invoke


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Pipelines that were asked for a whole answer; warm-ups are one token long."""
    from tokenprune.hf.frontend.runner import FamilyModel

    asked: list[Any] = []
    plain = FamilyModel.answer

    def watched(self: Any, prepared: Any, pipeline: Any, max_new_tokens: int) -> Any:
        if max_new_tokens > 1:
            asked.append(pipeline)
        return plain(self, prepared, pipeline, max_new_tokens)

    monkeypatch.setattr(FamilyModel, "answer", watched)
    return asked


def results_of(outcome: Any, path: Path = Path("stage1_sweep_results.json")) -> dict[str, Any]:
    assert outcome.exit_code == 0, outcome.output
    return json.loads(path.read_text())


def failed(outcome: Any, code: int, *said: str) -> None:
    assert outcome.exit_code == code, outcome.output
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1, outcome.stderr
    for part in ("tokenprune: ", *said):
        assert part in lines[0]
    assert outcome.stdout == ""


def without_seconds(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: without_seconds(value) for name, value in data.items() if name != "seconds"}
    return [without_seconds(value) for value in data] if isinstance(data, list) else data


def test_the_grid_of_the_document(run: Run, answers: list[Any]) -> None:
    outcome = run()
    data = results_of(outcome)
    wanted = list(product((0.7, 0.8, 0.9), (0.3, 0.5, 0.7), (0.25, 0.5)))
    assert [tuple(entry["point"].values()) for entry in data["entries"]] == wanted
    assert answers == [None, *(tp.Pipeline([tp.STMerge(*values)]) for values in wanted)]
    assert data["inputs"]["question"] == "What?"
    first = data["entries"][0]
    assert first["visual_after"][0] < first["visual_tokens"]
    assert 0 < first["layer_averaged_retained"] < 1
    assert Path("stage1_sweep_results.png").read_bytes().startswith(b"\x89PNG")
    table = [line for line in outcome.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(wanted)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    same, seen = [row[6] for row in rows], [float(row[4].rstrip("%")) for row in rows]
    assert same == sorted(same, reverse=True)
    for answer in ("yes", "no"):
        of_answer = [value for value, told in zip(seen, same) if told == answer]
        assert of_answer == sorted(of_answer)


def test_a_point_is_what_run_answers(run: Run, checkpoint: Path) -> None:
    entry = results_of(run("--tau", "0.8", "--cluster-ratio", "0.5", "--segment-ratio", "0.25"))["entries"][0]
    options = ["--preset", "stage1_only", "--frames", "6", "--max-new-tokens", "3", "--model", str(checkpoint)]
    outcome = CliRunner().invoke(app, ["run", str(BUNNY), "What?", *options, "--compare", "--json"])
    alone = json.loads(outcome.stdout)
    assert (entry["answer"], entry["same_answer"]) == (alone["answer"], alone["same_answer"])
    for name in ("visual_retained", "layer_averaged_retained"):
        assert entry[name] == alone["report"][name][0]
    assert entry["kv_bytes"] == alone["report"]["kv_bytes"]


def test_stage_2_too(run: Run) -> None:
    data = results_of(run(*SMALL, "--keep-ratio", "0.3,0.6", "--layer", "1,0.5"))
    assert len(data["entries"]) == 2 * 1 * 2 * 2 * 2
    point = data["entries"][-1]["point"]
    assert (point["keep_ratio"], point["layer"]) == (0.6, 0.5)
    assert len(data["entries"][0]["visual_after"]) == 2
    only = results_of(run(*SMALL, "--layer", "1", "--out", "two.json"), Path("two.json"))
    assert {entry["point"]["keep_ratio"] for entry in only["entries"]} == {0.4}


def test_the_video_is_decoded_and_encoded_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed

    looks: list[int] = []
    plain = Qwen2_5_VisionPatchEmbed.forward

    def watched(self: Any, patches: Any) -> Any:
        looks.append(len(patches))
        return plain(self, patches)

    monkeypatch.setattr(Qwen2_5_VisionPatchEmbed, "forward", watched)
    results_of(run(*SMALL))
    assert [count for count in looks if count > 4] == [max(looks)]


@pytest.mark.parametrize("interrupted_at", [1, 2, 4])
def test_interrupted_and_resumed(
    run: Run, answers: list[Any], monkeypatch: pytest.MonkeyPatch, interrupted_at: int
) -> None:
    from tokenprune.hf.frontend.runner import FamilyModel

    whole = without_seconds(results_of(run(*SMALL, "--out", "whole.json"), Path("whole.json")))
    complete = list(answers)
    answers.clear()
    with monkeypatch.context() as patch:
        watched = FamilyModel.answer

        def interrupting(self: Any, prepared: Any, pipeline: Any, max_new_tokens: int) -> Any:
            if len(answers) == interrupted_at:
                raise KeyboardInterrupt
            return watched(self, prepared, pipeline, max_new_tokens)

        patch.setattr(FamilyModel, "answer", interrupting)
        outcome = run(*SMALL)
    assert outcome.exit_code == 130
    assert "interrupted" in outcome.stderr
    kept = json.loads(Path("stage1_sweep_results.json").read_text())
    assert len(kept["entries"]) == interrupted_at - 1  # the first answer is the plain model's
    assert not list(Path().glob(".*"))
    data = results_of(run(*SMALL))
    assert without_seconds(data) == whole
    assert data["entries"][: interrupted_at - 1] == kept["entries"]
    assert answers == complete
    again = results_of(run(*SMALL))
    assert again == data
    assert answers == complete


def test_another_grid_adds_points(run: Run, answers: list[Any]) -> None:
    results_of(run(*SMALL))
    answers.clear()
    outcome = run("--tau", "0.7", "--cluster-ratio", "0.5,0.6", "--segment-ratio", "0.25")
    data = results_of(outcome)
    assert answers == [tp.Pipeline([tp.STMerge(0.7, 0.6, 0.25)])]
    assert len(data["entries"]) == 5
    assert len([line for line in outcome.stdout.splitlines() if line.startswith("|")]) == 2 + 2


def test_results_of_other_inputs_are_refused(run: Run, tmp_path: Path) -> None:
    first = results_of(run(*SMALL))
    other = tmp_path / "other.mp4"
    other.write_bytes(BUNNY.read_bytes() + b"\0")
    failed(run(*SMALL, question="Why?"), 1, "other inputs", "question", '"Why?"', "--out")
    failed(run(*SMALL, video=other), 1, "other inputs", "video_sha256")
    failed(run(*SMALL, "--max-pixels", "2000"), 1, "other inputs", "max_pixels")
    same_name = save_tiny(tmp_path / "model", seed=1)
    failed(run(*SMALL, model=same_name), 1, "other inputs", "model")
    moved = shutil.copy(BUNNY, tmp_path / "moved.mp4")
    results_of(run(*SMALL, video=moved))
    assert results_of(run(*SMALL)) == first


def test_other_weights_under_the_same_name_are_refused(run: Run, tmp_path: Path) -> None:
    place = save_tiny(tmp_path / "model", seed=0)
    results_of(run(*SMALL, model=place))
    shutil.rmtree(place)
    save_tiny(place, seed=1)
    failed(run(*SMALL, model=place), 1, "other inputs", "weights_sha256")


@pytest.mark.parametrize("content", ["", "[1, 2", "[]", "{}", '{"format": "tokenprune.sweep", "version": 99}'])
def test_files_that_hold_something_else_stay_as_they_are(run: Run, content: str) -> None:
    Path("mine.json").write_text(content)
    failed(run(*SMALL, "--out", "mine.json"), 1, "mine.json")
    assert Path("mine.json").read_text() == content


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tau", "high"), "--tau"),
        (("--tau", "0.7,,0.8"), "--tau"),
        (("--tau", "0.7,1.5"), "1.5"),
        (("--cluster-ratio", "0"), "cluster_ratio"),
        (("--segment-ratio", "nan"), "temporal_segment_ratio"),
        (("--keep-ratio", "1.2"), "keep_ratio"),
        (("--layer", "1.0"), "layer"),
        (("--layer", "two"), "--layer"),
        (("--out", "nowhere/x.json"), "--out"),
        (("--out", "x.png"), "--out"),
        (("--plot", "x.gif"), "--plot"),
        (("--plot", "nowhere/x.png"), "--plot"),
        (("--fps", "1"), "--frames and --fps"),
        (("--world",), "--world"),
        (("--questions", "5"), "--questions and --seed are for --world"),
        (("--seed", "0"), "--questions and --seed are for --world"),
    ],
)
def test_wrong_usage(run: Run, options: tuple[str, ...], said: str) -> None:
    failed(run(*options), 2, said)
    assert not list(Path().iterdir())


def test_the_world_has_its_own_lengths() -> None:
    outcome = CliRunner().invoke(app, ["sweep", "--world", "--max-new-tokens", "8"])
    assert outcome.exit_code == 2
    assert "--max-new-tokens" in outcome.stderr


def test_what_cannot_be_done(run: Run, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    data = BUNNY.read_bytes()
    cut.write_bytes(data[: data.index(b"mdat") + 100])  # no frame is left
    failed(run(video=cut), 1, "cut.mp4")
    failed(run(video="none.mp4"), 1, "no such video file")
    failed(run(question=" "), 2, "QUESTION")
    failed(run("--layer", str(LAYERS)), 1, f"layer {LAYERS}")
    failed(run(model=tmp_path / "none"), 1, "no such checkpoint")
    assert CliRunner().invoke(app, ["sweep"]).exit_code == 2
    assert not Path("stage1_sweep_results.json").exists()
    outcome = run("--json", video="none.mp4")
    assert json.loads(outcome.stdout)["error"]["type"] == "VideoError"


def test_json(run: Run) -> None:
    outcome = run(*SMALL, "--json")
    assert json.loads(outcome.stdout) == results_of(outcome)


def test_the_worlds_questions(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["sweep", "--world", "--questions", "4", "--model", str(checkpoint), "--tau", "0.8"]
    arguments += ["--cluster-ratio", "0.5", "--segment-ratio", "0.25"]
    outcome = CliRunner().invoke(app, arguments)
    data = results_of(outcome)
    assert data["inputs"]["questions"] == 4
    assert data["entries"][0]["accuracy"]["total"] == 4
    assert 0 < data["entries"][0]["layer_averaged_retained"] < 1
    assert "accuracy" in outcome.stdout
    more = results_of(CliRunner().invoke(app, [*arguments[:-1], "0.25,0.5"]))
    assert more["entries"][0] == data["entries"][0]
    assert len(more["entries"]) == 2
    failed(CliRunner().invoke(app, [*arguments, "--questions", "5"]), 1, "other inputs", "questions")
    with_video = CliRunner().invoke(app, ["sweep", str(BUNNY), "What?", "--model", str(checkpoint)])
    failed(with_video, 1, "tokenprune.sweep results")
