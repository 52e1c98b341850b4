# SPDX-License-Identifier: Apache-2.0
"""The script of the frames question: which rows it asks, with whom it compares them, and all of it on two questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import world_frames
from world_frames import Row, rows_of, summary

from tokenprune.bench.world_benchmark.asked import ask_world


def test_frames_are_read_unpruned_and_as_the_tokens_of_fewer() -> None:
    rows = rows_of([8, 16, 64], [8, 16])
    assert [row.name for row in rows] == [
        "8 frames",
        "16 frames",
        "16 frames as 144 tokens",
        "64 frames",
        "64 frames as 144 tokens",
        "64 frames as 288 tokens",
    ]
    assert [(row.encoded, row.tokens) for row in rows[-3:]] == [(1152, 1152), (1152, 144), (1152, 288)]
    assert rows[0].pipeline is None
    assert rows[2].pipeline is not None
    assert rows[2].pipeline.mass == "sizes"


def test_a_pruned_row_is_compared_at_equal_tokens_time_and_frames() -> None:
    kinds = ["where", "where", "shape"]
    rows = [
        Row(8, 144, ["0", "0", "2"], [1.0] * 3, [1.0] * 3),
        Row(16, 288, ["0", "2", "2"], [2.0] * 3, [2.0, 2.0, 90.0]),
        Row(32, 576, ["2", "2", "2"], [4.0] * 3, [4.0] * 3),
        Row(32, 144, ["2", "2", "1"], [4.0] * 3, [1.0] * 3),
    ]
    found = summary(rows[-1], rows, kinds)
    assert found["word"]["count"] == 3
    assert found["strict"]["count"] == found["small"]["count"] == 2
    assert (found["broad"]["count"], found["broad"]["total"]) == (0, 1)
    assert found["kinds"]["direction"] is None
    assert found["median_seconds"] == {"encode": 4.0, "answer": 1.0, "total": 5.0}
    assert {at: found[at]["row"] for at in found if at.startswith("at_")} == {
        "at_equal_tokens": "8 frames",
        "at_equal_time": "16 frames",
        "at_equal_frames": "32 frames",
    }
    tokens = found["at_equal_tokens"]
    assert {part: (tokens[part]["wins"], tokens[part]["losses"]) for part in ("all", "small", "broad")} == {
        "all": (2, 1),
        "small": (2, 0),
        "broad": (0, 1),
    }
    assert "at_equal_tokens" not in summary(rows[0], rows, kinds)


def test_without_a_row_that_is_no_slower_nothing_is_compared_at_equal_time() -> None:
    rows = [Row(8, 144, ["2"], [9.0], [9.0]), Row(32, 144, ["2"], [4.0], [1.0])]
    assert "at_equal_time" not in summary(rows[1], rows, ["where"])


def test_longer_clips_are_asked_as_many_questions() -> None:
    clips = ask_world(20, seed=303, frames=64)
    assert {clip.scene.frames for clip in clips} == {64}
    assert sum(len(clip.questions) for clip in clips) == 20


def test_the_script_asks_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "frames.json"
    words = "world_frames.py --clip-frames 32 --frames 8,32 --budgets 8 --questions 2 --seed 303"
    monkeypatch.setattr("sys.argv", [*words.split(), "--out", str(out)])
    world_frames.main()
    (run,) = json.loads(out.read_text())["runs"]
    assert run["clip_frames"] == 32
    assert [row["row"] for row in run["rows"]] == ["8 frames", "32 frames", "32 frames as 144 tokens"]
    for row in run["rows"]:
        assert row["strict"]["total"] == 2
        assert row["median_seconds"]["encode"] > 0
        assert row["median_seconds"]["answer"] > 0
    assert run["rows"][1]["strict"]["count"] == 2, "the model holds on clips that have twice its frames"


def test_a_budget_without_an_unpruned_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["world_frames.py", "--frames", "16,32", "--budgets", "8"])
    with pytest.raises(SystemExit):
        world_frames.main()
