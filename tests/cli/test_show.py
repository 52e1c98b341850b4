# SPDX-License-Identifier: Apache-2.0
"""``tokenprune show``: the pictures are there, tell what the report tells, and need nothing from outside."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")
pytest.importorskip("jinja2")
pytest.importorskip("PIL")

from PIL import Image
from qwen25vl.tiny import save_tiny
from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.cli.app import app
from tokenprune.history import SpanHistory, StepHistory
from tokenprune.show.cells import DROPPED, KEPT, MERGED, CellMap
from tokenprune.show.scene import Scene

BUNNY = Path(__file__).parents[1] / "data" / "bigbuckbunny.mp4"

Show = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def show(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Show:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def invoke(
        *options: str, video: str | Path = BUNNY, question: str = "What is </script> it?", out: Path | None = None
    ) -> Any:
        fixed = ["--model", str(checkpoint), "--max-new-tokens", "2", "-o", str(out or tmp_path / "out" / "deep")]
        return CliRunner().invoke(app, ["show", str(video), question, *fixed, *options])

    return invoke


def shown(outcome: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The JSON of the command, the data in the page, and the page."""
    assert outcome.exit_code == 0, outcome.output
    result = json.loads(outcome.stdout)
    page = Path(result["page"]).read_text("utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return result, json.loads(found[1]), page


def pipeline_file(folder: Path, *operators: Any) -> str:
    path = folder / "pipeline.json"
    tp.Pipeline(operators).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "operators", "frames", "places", "scored"),
    [
        ("both", (tp.STMerge(), tp.AttnPrune(layer=1, keep_ratio=0.5)), 8, 4, True),
        ("first", (tp.STMerge(keep_ratio=0.3),), 8, 4, False),
        ("second", (tp.AttnPrune(layer=1, keep=5),), 8, 4, True),
        ("by chance", (tp.RandomPrune(layer=1, keep=5),), 8, 4, False),
        ("none", (), 8, 4, False),
        ("one frame", (tp.STMerge(), tp.AttnPrune(layer=1, keep_ratio=0.5)), 1, 1, True),
    ],
)
def test_the_page_tells_what_the_report_tells(
    show: Show, tmp_path: Path, name: str, operators: tuple[Any, ...], frames: int, places: int, scored: bool
) -> None:
    chosen = pipeline_file(tmp_path, *operators)
    outcome = show("--json", "--frames", str(frames), "--max-pixels", "12544", "--pipeline", chosen)
    result, data, page = shown(outcome)
    report, cells = result["report"], result["cells"]
    total = report["visual_tokens"][0]
    grid = data["grid"]
    assert cells["grid"] == grid
    assert grid[0] == places
    assert min(grid[1:]) > 1
    assert len(data["fate"]) == total == grid[0] * grid[1] * grid[2]
    left = report["stages"][-1]["visual_after"][0] if operators else total
    assert data["fate"].count(KEPT) == cells["kept"] == left
    counts = {word: data["fate"].count(number) for word, number in (("merged", MERGED), ("dropped", DROPPED))}
    assert counts == {word: cells[word] for word in counts}
    for word in ("kept", "merged", "dropped", "static"):
        assert f'<td data-count="{word}">{cells[word]}</td>' in page
    for place, at in enumerate(data["places"]):
        fates = data["fate"][place * grid[1] * grid[2] : (place + 1) * grid[1] * grid[2]]
        assert at["kept"] == fates.count(KEPT)
        assert at["static"] + at["merged"] == fates.count(MERGED)
        assert at["dropped"] == fates.count(DROPPED)
    assert (data["heat"] is not None) == (data["scores"] is not None) == scored
    assert len(data["frames"]) == places
    assert all(frame.startswith("data:image/jpeg;base64,") for frame in data["frames"])
    with Image.open(result["sheet"]) as sheet:
        assert (sheet.format, sheet.width) == ("PNG", 1320)


def test_the_page_needs_nothing_from_outside(show: Show) -> None:
    outcome = show("--json", "--frames", "4")
    result, _, page = shown(outcome)
    assert not re.search(r"https?:|//[a-z]+\.|@import|\b(src|href)\s*=\s*[\"']", page, re.IGNORECASE)
    assert "default-src 'none'" in page
    assert "What is &lt;/script&gt; it?" in page
    assert sorted(path.name for path in Path(result["page"]).parent.iterdir()) == ["frames.png", "index.html"]


def test_it_says_where_the_pictures_are(show: Show, tmp_path: Path) -> None:
    outcome = show("--frames", "4")
    assert outcome.exit_code == 0, outcome.output
    assert str(tmp_path / "out" / "deep" / "index.html") in outcome.stdout
    assert "Cover before the LLM: 6 -> 1" in outcome.stdout


@pytest.mark.parametrize(
    ("options", "changed", "code", "said"),
    [
        ((), {"question": " "}, 2, "QUESTION must not be empty"),
        ((), {"video": "nowhere.mp4"}, 1, "no such video file: nowhere.mp4"),
        ((), {"out": BUNNY}, 2, "--out must name a folder"),
        ((), {"out": BUNNY / "below"}, 2, "--out must name a folder"),
        (("--frames", "4", "--fps", "2"), {}, 2, "choose one of --frames and --fps"),
        (("--tau", "7"), {}, 2, "tau"),
        (("--layer", "40"), {}, 1, "layer"),
    ],
)
def test_what_is_wrong_is_said_on_one_line(
    show: Show, options: tuple[str, ...], changed: dict[str, Any], code: int, said: str
) -> None:
    outcome = show(*options, **changed)
    assert outcome.exit_code == code, outcome.output
    (line,) = outcome.stderr.strip().splitlines()
    assert line.startswith("tokenprune: ")
    assert said in line
    assert outcome.stdout == ""


def test_without_the_extra_it_names_the_extra(show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune.cli.show.find_spec", lambda name: None if name == "jinja2" else object())
    outcome = show()
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert 'pip install "tokenprune-vlm[plot]"' in outcome.stderr
    assert not (tmp_path / "out").exists()


# What happened to a cell


def traced(steps: list[StepHistory], grid: tuple[int, int, int]) -> CellMap:
    total = grid[0] * grid[1] * grid[2]
    plan = tp.TokenPlan.identity(total)
    for step in steps:
        plan = plan.then(step.plan)
    return CellMap.of(SpanHistory("video", grid, torch.arange(total), plan, tuple(steps)))


def test_every_cell_is_what_happened_to_it() -> None:
    """Two frames of three cells: one place merged over time, one token merged in space, one dropped, one cut later."""
    merge = tp.TokenPlan(torch.tensor([0, 1, 4]), torch.tensor([0, 1, -1, 0, 2, 2]), segments=((0, 2),))
    cut = tp.TokenPlan.keeping(torch.tensor([0, 2]), 3)
    cells = traced(
        [StepHistory("A", None, merge, None), StepHistory("B", 3, cut, torch.tensor([3.0, 1.0, 2.0]), "after_layer")],
        (2, 1, 3),
    )
    assert cells.fate.tolist() == [KEPT, DROPPED, DROPPED, MERGED, KEPT, MERGED]
    assert cells.lost.tolist() == [-1, 1, 0, -1, -1, -1]
    assert cells.token.tolist() == [0, 1, -1, 0, 2, 2]
    assert cells.anchor.tolist() == [0, 1, -1, 0, 4, 4]
    assert cells.static.tolist() == [True, False, False, True, False, False]
    assert cells.segments == ((0, 2),)
    assert [(s.operator, s.layer, s.before, s.after) for s in cells.steps] == [("A", None, 6, 3), ("B", 3, 3, 2)]
    assert cells.scored_by == 1
    assert cells.scores is not None
    assert np.array_equal(cells.scores, [3.0, 1.0, np.nan, 3.0, 2.0, 2.0], equal_nan=True)
    assert cells.counts() == {"kept": 2, "merged": 2, "dropped": 2, "static": 2}


def test_pictures_must_fit_the_grid() -> None:
    cells = traced([], (2, 1, 3))
    with pytest.raises(tp.InvalidValueError, match="do not fit"):
        Scene(np.zeros((3, 28, 84, 3), np.uint8), 2.0, cells, "Q", "A", {})
    assert Scene(np.zeros((4, 28, 84, 3), np.uint8), 2.0, cells, "Q", "A", {}).pace == 2
