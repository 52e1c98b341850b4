# SPDX-License-Identifier: Apache-2.0
"""``tokenprune eval world`` as it is called: tables, files, and errors on one line with the right exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torchvision")

from qwen25vl.tiny import save_tiny
from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.bench.world_benchmark import asking
from tokenprune.cli._benchmarks import find_benchmark
from tokenprune.cli.app import app

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run(checkpoint: Path) -> Run:
    def invoke(*options: str, model: Path | None = None, questions: int = 3) -> Any:
        chosen = ["--model", str(model or checkpoint), "--questions", str(questions), "--device", "cpu"]
        return CliRunner().invoke(app, ["eval", "world", *chosen, *options])

    return invoke


def test_the_recommended_preset_beside_plain_random_and_uniform(run: Run) -> None:
    done = run()
    assert done.exit_code == 0, done.stderr
    lines = [line.strip("| ").split("|")[0].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    names = ["plain", "recommended", "random as recommended", "uniform as recommended"]
    assert [line for line in lines if line in names] == 2 * names  # budgets and accuracy, then each kind
    assert "…" not in done.stdout
    assert done.stderr == ""


def test_methods_by_budgets(run: Run) -> None:
    done = run("--methods", "Cover,EVS", "--budgets", "0.25,0.1", "--against", "EVS", questions=9)
    assert done.exit_code == 0, done.stderr
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in done.stdout.splitlines()]
    head = next(place for place, cells in enumerate(lines) if cells[0].startswith("word / strict [95 %"))
    assert lines[head][1:] == ["25 %", "10 %"]
    assert [cells[0] for cells in lines[head + 2 : head + 6]] == ["Cover", "Cover + mass", "EVS", "EVS + mass"]
    tests = next(place for place, cells in enumerate(lines) if cells[0] == "against EVS: word; strict")
    assert [cells[0] for cells in lines[tests + 2 : tests + 5]] == ["Cover", "Cover + mass", "EVS + mass"]
    assert "word: the answer begins with the right word; strict:" in done.stdout


def test_mass_for_presets(run: Run) -> None:
    data = json.loads(run("--preset", "default", "--mass", "both", "--json").stdout)
    names = ["plain", "default", "random as default", "uniform as default", "default + mass"]
    assert [row["name"] for row in data["rows"]] == names
    assert [row["pipeline"]["mass"] for row in data["rows"] if row["pipeline"]] == [None, "sizes"]


def test_files_and_json(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    mine = tmp_path / "mine.json"
    tp.Pipeline([tp.UniformSelect(keep=4)]).save(mine)
    out, plot = tmp_path / "world.json", tmp_path / "world.png"
    done = run("--pipeline", str(mine), "--preset", "baseline", "--out", str(out), "--plot", str(plot), "--json")
    assert done.exit_code == 0, done.stderr
    data = json.loads(done.stdout)
    assert json.loads(out.read_text()) == data
    names = [row["name"] for row in data["rows"]]
    assert names == ["plain", "baseline", str(mine), f"random as {mine}", f"uniform as {mine}"]
    assert data["command"].startswith("tokenprune")
    assert data["model"] == data["setting"]["model"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.json", "world.json", "world.png"]
    failed(run("--pipeline", str(mine), "--out", str(mine)), 2, f"--out would overwrite {mine}, which holds no result")
    assert tp.Pipeline.load(mine) == tp.Pipeline([tp.UniformSelect(keep=4)])
    assert run("--preset", "baseline", "--out", str(out)).exit_code == 0


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_result_gives_the_same_picture(run: Run, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    pictures: list[bytes] = []
    for name in ("a", "b"):
        plot = tmp_path / f"{name}.{suffix}"
        assert run("--preset", "baseline", "--plot", str(plot)).exit_code == 0
        pictures.append(plot.read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--preset", "bold"), "preset must be one of"),
        (("--table", "--sweep"), "choose one of"),
        (("--table", "--preset", "default"), "choose one of"),
        (("--ablation", "--plot", "a.png"), "--ablation"),
        (("--plot", "a.txt"), ".png"),
        (("--out", "no/such/directory/a.json"), "--out"),
        (("--out", "."), "--out"),
        (("--methods", "Covr"), "--methods must be one of all, "),
        (("--methods", "Covr"), "did you mean 'Cover'?"),
        (("--methods", "Cover", "--budgets", "0.1,2"), "--budgets must be fractions in (0, 1], got '2'"),
        (("--methods", "Cover", "--budgets", ""), "--budgets must be fractions in (0, 1], got ''"),
        (("--methods", "Cover", "--budgets", "x"), "--budgets must be fractions in (0, 1], got 'x'"),
        (("--budgets", "0.1"), "--budgets needs --methods"),
        (("--mass", "some"), "--mass must be one of with, without, both"),
        (("--methods", "Cover", "--table"), "choose one of"),
    ],
)
def test_wrong_usage(run: Run, options: tuple[str, ...], said: str) -> None:
    failed(run(*options), 2, said)


@pytest.mark.parametrize("option", [("--questions", "0"), ("--seed", "-1")])
def test_numbers_out_of_range(run: Run, option: tuple[str, str]) -> None:
    assert run(*option).exit_code == 2


def test_wrong_usage_as_json(run: Run) -> None:
    done = run("--preset", "bold", "--json")
    assert done.exit_code == 2
    assert "preset must be one of" in json.loads(done.stdout)["error"]["message"]


def test_failed_jobs(run: Run, tmp_path: Path) -> None:
    failed(run(model=tmp_path / "nowhere"), 1, "nowhere")
    failed(run("--pipeline", str(tmp_path / "missing.json")), 1, "missing.json")
    deep = tmp_path / "deep.json"
    tp.Pipeline([tp.AttnPrune(layer=40, keep=3)]).save(deep)
    failed(run("--pipeline", str(deep)), 1, "layer 40")


def test_a_failed_job_as_json_leaves_no_file(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "world.json"
    done = run("--json", "--out", str(out), model=tmp_path / "nowhere")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["type"] == "ModelLoadError"
    assert not out.exists()


def without_seconds(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: without_seconds(value) for name, value in data.items() if not name.endswith("seconds")}
    return [without_seconds(each) for each in data] if isinstance(data, list) else data


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Clips that were looked at, each in a batch of its own."""
    seen: list[int] = []
    monkeypatch.setattr(asking, "ROWS", 1)
    look = asking.Run.see

    def counting(self: Any, clip: Any) -> Any:
        seen.append(clip.scene.seed)
        return look(self, clip)

    monkeypatch.setattr(asking.Run, "see", counting)
    return seen


@pytest.fixture
def interrupted_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    ask = asking.Run.ask

    def after(clips: int) -> None:
        left = [clips]

        def counted(self: Any, clips: Any, looks: Any) -> Any:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return ask(self, clips, looks)

        monkeypatch.setattr(asking.Run, "ask", counted)

    return after


def test_interrupted_and_resumed(
    run: Run, tmp_path: Path, looks: list[int], interrupted_after: Callable[[int], None]
) -> None:
    out, whole = tmp_path / "world.json", tmp_path / "whole.json"
    assert run("--out", str(whole), "--blind", questions=30).exit_code == 0
    clips = list(looks)
    assert len(clips) > 2

    interrupted_after(2)
    for _ in range(2):  # the second run goes on, and is interrupted once more
        done = run("--out", str(out), "--blind", questions=30)
        assert done.exit_code == 130
        assert done.stderr.splitlines()[-1] == "tokenprune: interrupted"
        assert not out.exists()
    partial = json.loads((tmp_path / "world.partial.json").read_text())
    assert [entry["clip"] for entry in partial["entries"]] == clips[:2]

    failed(run("--out", str(out), questions=30), 1, "blind was true, now it is false")
    failed(run("--out", str(out), "--blind", questions=31), 1, "questions was 30, now it is 31")
    failed(run("--out", str(out), "--blind", "--attn", "eager", questions=30), 1, "attention was")
    failed(run("--out", str(out), "--blind", "--preset", "aggressive", questions=30), 1, "pipelines was")

    interrupted_after(len(clips))
    looks.clear()
    done = run("--out", str(out), "--blind", "--json", questions=30)
    assert done.exit_code == 0, done.stderr
    assert looks == [clips[0], *clips[2:]]  # the first tells how long prompts are
    results = [json.loads(text) for text in (done.stdout, out.read_text(), whole.read_text())]
    assert results[0] == results[1]
    for result in results:
        result.pop("command")
    assert without_seconds(results[0]) == without_seconds(results[2])
    assert all(row["seconds"] > 0 for row in results[0]["rows"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.json", "world.json"]


def test_a_partial_file_of_something_else_stays(run: Run, tmp_path: Path) -> None:
    partial = tmp_path / "world.partial.json"
    for content in (
        "{",
        "[]",
        "[" * 10**5,
        '{"format": "tokenprune.sweep", "version": 1, "inputs": {}, "entries": []}',
    ):
        partial.write_text(content)
        failed(run("--out", str(tmp_path / "world.json")), 1, "world.partial.json")
        assert partial.read_text() == content


def test_an_unknown_benchmark() -> None:
    with pytest.raises(tp.NoAdapterError, match="no adapter has the benchmark 'moon'"):
        find_benchmark("moon")


def failed(done: Any, code: int, said: str) -> None:
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert done.stderr.startswith("tokenprune: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
