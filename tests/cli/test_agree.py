# SPDX-License-Identifier: Apache-2.0
"""``tokenprune eval agree``: what equals the plain model's answer, what differs and by how much, and bad videos."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

import av
from qwen25vl.tiny import save_tiny
from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.bench.agree.figures import Mean
from tokenprune.bench.results import Results
from tokenprune.cli.app import app

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video of noise that moves, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    noise = np.random.default_rng(3).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    with av.open(str(folder / "noise.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for place in range(16):
            picture = np.ascontiguousarray(noise[:, 4 * place : 4 * place + 64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture
def run(checkpoint: Path, videos: Path) -> Run:
    def invoke(*options: str, folder: Path | None = None) -> Any:
        fixed = ["--videos", str(folder or videos), "--model", str(checkpoint), "--device", "cpu"]
        asked = ["--max-new-tokens", "3", "--question", "What?", "--question", "Why?"]
        return CliRunner().invoke(app, ["eval", "agree", *fixed, "--frames", "4", "--windows", "2", *asked, *options])

    return invoke


def test_what_keeps_all_agrees_and_what_drops_nearly_all_does_not(run: Run, tmp_path: Path) -> None:
    one = tmp_path / "one.json"
    tp.Pipeline([tp.UniformSelect(keep=1)]).save(one)
    done = run("--preset", "baseline", "--pipeline", str(one), "--json", "--out", str(tmp_path / "agree.json"))
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data == json.loads((tmp_path / "agree.json").read_text())
    all_kept, one_kept = data["rows"]
    assert all_kept["equal"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert all_kept["kl"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert all_kept["layer_averaged_retained"] == 1.0
    assert one_kept["kl"]["value"] > 0
    assert one_kept["layer_averaged_retained"] < 0.5
    assert (data["setting"]["parts"], data["setting"]["asked"]) == (2, 4)
    assert list(data["unreadable"]) == ["broken.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agree.json", "one.json"]


def test_methods_and_the_warning(run: Run) -> None:
    done = run("--methods", "Cover,UniformSelect", "--budgets", "0.5")
    assert done.exit_code == 0, done.output
    names = [line.strip("| ").split("|")[0].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    forms = [f"{name}{mass} at 50 %" for name in ("Cover", "UniformSelect") for mass in ("", " + mass")]
    assert names[2:] == forms
    assert "not whether it is right" in done.stdout
    assert "not read: broken.mp4" in done.stdout


def test_each_part_is_encoded_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenprune.hf.frontend import runner

    looked: list[int] = []
    encode = runner.encode_video
    monkeypatch.setattr(runner, "encode_video", lambda *given: looked.append(1) or encode(*given))
    assert run().exit_code == 0
    assert len(looked) == 2


def test_a_video_is_kept_with_all_of_its_parts_or_not_at_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[str] = []
    save = Results.save

    def saving(self: Results) -> None:
        save(self)
        states.append(self.path.read_text("utf-8"))

    monkeypatch.setattr(Results, "save", saving)
    assert run("--out", str(tmp_path / "agree.json")).exit_code == 0
    kept = [state.count('"window"') - state.count('"error"') for state in states]
    assert kept == [0, 2]


def test_interrupted_and_resumed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenprune.hf.frontend.runner import FamilyModel

    out = tmp_path / "agree.json"
    whole = json.loads(run("--json").stdout)
    windows = FamilyModel.windows

    def interrupted(self: Any, question: Any, *given: Any) -> Any:
        if question.video.endswith("noise.mp4"):
            raise KeyboardInterrupt
        return windows(self, question, *given)

    with monkeypatch.context() as patch:
        patch.setattr(FamilyModel, "windows", interrupted)
        assert run("--out", str(out)).exit_code == 130
    assert run("--out", str(out), "--max-new-tokens", "4").exit_code == 1  # another run's
    resumed = json.loads(run("--out", str(out), "--json").stdout)
    assert resumed["rows"] == whole["rows"]
    assert not (tmp_path / "agree.partial.json").exists()


@pytest.mark.parametrize(
    ("options", "folder", "code", "said"),
    [
        ((), "nowhere", 2, "--videos must be a folder"),
        ((), ".", 1, "no video in"),
        (("--question", " "), None, 2, "QUESTION must not be empty"),
        (("--methods", "Covr"), None, 2, "--methods must be one of"),
        (("--plot", "a.png"), None, 2, "No such option: --plot"),
        (("--windows", "99"), None, 1, "none of the videos"),
    ],
)
def test_what_is_refused(
    run: Run, tmp_path: Path, options: tuple[str, ...], folder: str | None, code: int, said: str
) -> None:
    done = run(*options, folder=None if folder is None else tmp_path / folder)
    assert (done.exit_code, said in done.stderr) == (code, True), done.output


def test_means_and_their_intervals_go_by_parts() -> None:
    assert Mean.of([[1.0, 0.0, 1.0, 0.0]]) == Mean(0.5, None, None)
    apart = Mean.of([[1.0] * 4, [0.0] * 4] * 4)
    mixed = Mean.of([[1.0, 0.0, 1.0, 0.0]] * 8)
    assert apart.value == mixed.value == 0.5
    assert (mixed.low, mixed.high) == (0.5, 0.5)
    assert apart.low is not None
    assert apart.low < 0.3
    assert Mean.of([[0.1, 0.3], [0.2]]) == Mean.of([[0.1, 0.3], [0.2]])
    assert math.isclose(Mean.of([[0.1, 0.3], [0.2]]).value, 0.2)


def test_tokens_that_are_forbidden_do_not_hide_a_divergence() -> None:
    import torch

    from tokenprune.bench.agree.asking import divergence

    plain, pruned = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([0.25, 0.75, 0.0]).log()
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(plain, pruned) == pytest.approx(expected)
    assert divergence(plain, plain) == 0.0
    assert divergence(plain, torch.tensor([1.0, 0.0, 0.0]).log()) == math.inf
