# SPDX-License-Identifier: Apache-2.0
"""``tokenprune eval egoschema``: its files, its counts, and videos that are missing or broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from qwen25vl.tiny import save_tiny
from typer.testing import CliRunner

from tokenprune.bench.benchmark import Share
from tokenprune.cli.app import app

BUNNY = Path(__file__).parents[1] / "data" / "bigbuckbunny.mp4"
UIDS = ["aaaa-0", "bbbb-1", "cccc-2", "dddd-3", "eeee-4", "ffff-5"]
BROKEN, MISSING = UIDS[3], UIDS[4]

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    options = {f"option {index}": f"C does thing number {index}" for index in range(5)}
    questions = [{"q_uid": uid, "google_drive_id": "x", "question": f"What of {uid}?", **options} for uid in UIDS]
    Path("questions.json").write_text(json.dumps(questions))
    Path("answers.json").write_text(json.dumps({UIDS[0]: 1, UIDS[1]: 3, UIDS[2]: 0, BROKEN: 2, "elsewhere": 4}))
    Path("videos").mkdir()
    for uid in UIDS:
        if uid != MISSING:
            shutil.copy(BUNNY, Path("videos") / f"{uid}.mp4")
    Path("videos", f"{UIDS[5]}.mp4").rename(Path("videos", f"{UIDS[5]}.mkv"))
    data = BUNNY.read_bytes()
    Path("videos", f"{BROKEN}.mp4").write_bytes(data[: data.index(b"mdat") + 100])  # no frame is left
    return tmp_path


@pytest.fixture
def run(files: Path, checkpoint: Path) -> Run:
    def invoke(*options: str) -> Any:
        fixed = ["--videos", "videos", "--questions", "questions.json", "--frames", "4", "--model", str(checkpoint)]
        return CliRunner().invoke(app, ["eval", "egoschema", *fixed, *options])

    return invoke


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions a model was asked that answers B, D, something else, B, D, ..."""
    from dataclasses import replace

    from tokenprune.hf.frontend.runner import FamilyModel

    asked: list[str] = []
    prepare, answer = FamilyModel.prepare, FamilyModel.answer

    def noted(self: Any, question: Any) -> Any:
        prepared = prepare(self, question)
        asked.append(question.question.split()[2].rstrip("?"))
        return prepared

    def scripted(self: Any, prepared: Any, pipeline: Any, max_new_tokens: int) -> Any:
        texts = {UIDS[0]: "B", UIDS[1]: "The answer is D.", UIDS[2]: "I cannot tell"}
        return replace(answer(self, prepared, pipeline, 1), text=texts.get(asked[-1], "C does thing number 4."))

    monkeypatch.setattr(FamilyModel, "prepare", noted)
    monkeypatch.setattr(FamilyModel, "answer", scripted)
    return asked


def result_of(outcome: Any, path: str = "egoschema_results.json") -> dict[str, Any]:
    assert outcome.exit_code == 0, outcome.output
    return json.loads(Path(path).read_text())


def failed(outcome: Any, code: int, *said: str) -> None:
    assert outcome.exit_code == code, outcome.output
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1, outcome.stderr
    for part in ("tokenprune: ", *said):
        assert part in lines[0]
    assert outcome.stdout == ""


def test_predictions_counts_and_accuracy(run: Run, said: list[str]) -> None:
    outcome = run("--answers", "answers.json", "--preset", "default")
    data = result_of(outcome)
    assert said == [UIDS[0], UIDS[1], UIDS[2], UIDS[5]]
    predictions = {entry["q_uid"]: entry["prediction"] for entry in data["entries"]}
    assert predictions == dict(zip(UIDS, (1, 3, -1, -1, -1, 4)))
    assert json.loads(Path("egoschema_results_submission.json").read_text()) == predictions
    summary = data["summary"]
    assert (summary["questions"], summary["unreadable_videos"], summary["unparsed_answers"]) == (6, 2, 1)
    assert summary["accuracy"] == Share(2, 4).to_dict()  # of the four with known answers, the broken one among them
    assert 0 < summary["visual_retained"] < summary["layer_averaged_retained"] < 1
    errors = {entry["q_uid"]: entry["error"] for entry in data["entries"] if "error" in entry}
    assert list(errors) == [BROKEN, MISSING]
    assert "cut off" in errors[BROKEN]
    assert "no such video file" in errors[MISSING]
    for part in ("2 of them with unreadable", "1 answers that name no option", "accuracy: 2 of 4, 50.0%", "Wilson"):
        assert part in outcome.stdout


def test_without_answers_and_with_a_subset(run: Run, said: list[str]) -> None:
    assert result_of(run("--json"))["summary"]["accuracy"] is None
    part = result_of(run("--answers", "answers.json", "--subset", "--out", "part.json"), "part.json")
    assert [entry["q_uid"] for entry in part["entries"]] == UIDS[:4]
    assert list(json.loads(Path("part_submission.json").read_text())) == UIDS[:4]


def test_interrupted_and_resumed(run: Run, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenprune.hf.frontend.runner import FamilyModel

    with monkeypatch.context() as patch:
        scripted = FamilyModel.answer

        def interrupting(self: Any, prepared: Any, pipeline: Any, max_new_tokens: int) -> Any:
            if said[-1] == UIDS[2]:
                raise KeyboardInterrupt
            return scripted(self, prepared, pipeline, max_new_tokens)

        patch.setattr(FamilyModel, "answer", interrupting)
        outcome = run("--answers", "answers.json")
    assert outcome.exit_code == 130
    kept = json.loads(Path("egoschema_results.json").read_text())
    assert [entry["q_uid"] for entry in kept["entries"]] == UIDS[:2]
    assert kept["summary"]["accuracy"] == Share(2, 2).to_dict()
    assert json.loads(Path("egoschema_results_submission.json").read_text())[UIDS[5]] == -1
    said.clear()
    data = result_of(run("--answers", "answers.json"))
    assert said == [UIDS[2], UIDS[5]]
    assert data["entries"][:2] == kept["entries"]
    assert data["summary"]["accuracy"]["total"] == 4


def test_a_repaired_video_is_tried_again(run: Run, said: list[str]) -> None:
    result_of(run())
    shutil.copy(BUNNY, Path("videos") / f"{BROKEN}.mp4")
    said.clear()
    data = result_of(run("--answers", "answers.json"))
    assert said == [BROKEN]
    assert data["summary"]["unreadable_videos"] == 1
    assert data["summary"]["accuracy"]["total"] == 4
    assert sorted(entry["q_uid"] for entry in data["entries"]) == UIDS


def test_a_real_models_answers(run: Run) -> None:
    data = result_of(run("--preset", "baseline"))
    answered = [entry for entry in data["entries"] if "error" not in entry]
    assert len(answered) == 4
    assert all(entry["text"] and entry["visual_retained"] == 1.0 for entry in answered)


def test_results_of_other_inputs_are_refused(run: Run, said: list[str]) -> None:
    result_of(run())
    failed(run("--preset", "aggressive"), 1, "other inputs", "preset")
    failed(run("--max-new-tokens", "4"), 1, "other inputs", "max_new_tokens")
    questions = json.loads(Path("questions.json").read_text())
    Path("questions.json").write_text(json.dumps(questions[:-1]))
    failed(run(), 1, "other inputs", "questions_sha256")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entries: {}, "list of questions"),
        (lambda entries: [], "of at least one"),
        (lambda entries: [*entries, entries[0]], "two questions with the q_uid aaaa-0"),
        (lambda entries: [3], "entry 0"),
        (lambda entries: [{**entries[0], "option 4": None}], "'option 4'"),
        (lambda entries: [{**entries[0], "question": " "}], "'question'"),
        (lambda entries: [{**entries[0], "q_uid": "../x"}], "'../x'"),
    ],
)
def test_bad_question_files(run: Run, change: Callable[[Any], Any], said: str) -> None:
    Path("questions.json").write_text(json.dumps(change(json.loads(Path("questions.json").read_text()))))
    failed(run(), 1, "questions.json", said)


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "cannot read"), ("[]", "object"), ('{"aaaa-0": 5}', "aaaa-0"), ('{"aaaa-0": "B"}', "'B'"),
     ('{"unknown": 1}', "no question")],
)  # fmt: skip
def test_bad_answer_files(run: Run, content: str, said: str) -> None:
    Path("answers.json").write_text(content)
    failed(run("--answers", "answers.json"), 1, "answers.json", said)


def test_bad_input(run: Run, tmp_path: Path) -> None:
    failed(run("--subset"), 2, "--answers")
    failed(run("--fps", "1"), 2, "--frames and --fps")
    failed(run("--out", "x.txt"), 2, "--out")
    failed(run("--preset", "fastest"), 2, "'fastest'")
    failed(run("--videos", "nowhere"), 2, "--videos")
    failed(run("--questions", "none.json"), 1, "none.json")
    failed(run("--layer", "99"), 1, "layer 99")
    failed(run("--model", "nowhere"), 1, "no such checkpoint")
    Path("empty").mkdir()
    failed(run("--videos", "empty"), 1, "none of the 6 questions has a video in empty")
    assert CliRunner().invoke(app, ["eval", "egoschema"]).exit_code == 2
    assert not Path("egoschema_results.json").exists()
