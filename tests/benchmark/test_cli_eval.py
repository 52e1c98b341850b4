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
from tokenprune.cli.app import app
from tokenprune.cli.eval import find_benchmark

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


def test_the_default_preset_beside_plain_random_and_uniform(run: Run) -> None:
    done = run()
    assert done.exit_code == 0, done.stderr
    lines = [line.strip("| ").split("|")[0].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    names = ["plain", "default", "random as default", "uniform as default"]
    assert [line for line in lines if line in names] == 2 * names  # budgets and accuracy, then each kind
    assert "…" not in done.stdout
    assert done.stderr == ""


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


def test_an_unknown_benchmark() -> None:
    with pytest.raises(tp.NoAdapterError, match="no adapter has the benchmark 'moon'"):
        find_benchmark("moon")


def failed(done: Any, code: int, said: str) -> None:
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert done.stderr.startswith("tokenprune: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
