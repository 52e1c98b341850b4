# SPDX-License-Identifier: Apache-2.0
"""The benchmark on a tiny random model: what it counts, at which budgets, and that it does so twice alike."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torchvision")

from qwen25vl.tiny import save_tiny

import tokenprune as tp
from tokenprune.bench.benchmark import FORMAT, VERSION, BenchmarkRequest, BenchmarkResult, Row
from tokenprune.bench.world_benchmark import WorldBenchmark
from tokenprune.bench.world_benchmark import run as world
from tokenprune.bench.world_benchmark.asked import ask_world, normalised
from tokenprune.errors import InvalidValueError, ModelLoadError
from tokenprune_qwen25vl.family import QWEN25VL


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def measure(checkpoint: Path, **asked: Any) -> BenchmarkResult:
    return WorldBenchmark(QWEN25VL).run(BenchmarkRequest(model=str(checkpoint), **asked), lambda done, total: None)


def by_name(result: BenchmarkResult) -> dict[str, Row]:
    return {row.name: row for row in result.rows}


@pytest.fixture(scope="module")
def result(checkpoint: Path) -> BenchmarkResult:
    named = {name: tp.preset(name) for name in ("default", "baseline")}
    return measure(checkpoint, pipelines=named, questions=20, blind=True)


def test_rows(result: BenchmarkResult) -> None:
    names = ["plain", "blind", "default", "random as default", "uniform as default", "baseline"]
    assert [row.name for row in result.rows] == names


def test_every_row_is_asked_every_question(result: BenchmarkResult) -> None:
    for row in result.rows:
        assert row.accuracy.total == row.agreement.total == 20
        assert {share.total for share in row.kinds.values()} == {2}
        assert sum(share.count for share in row.kinds.values()) == row.accuracy.count


def test_the_empty_pipeline_is_the_plain_model(result: BenchmarkResult) -> None:
    rows = by_name(result)
    assert rows["baseline"].agreement.value == rows["plain"].agreement.value == 1.0
    assert rows["baseline"].kinds == rows["plain"].kinds
    assert rows["baseline"].budget == rows["plain"].budget == 1.0
    assert rows["blind"].agreement.value < 1


def test_chance_spends_exactly_what_the_pipeline_does(result: BenchmarkResult) -> None:
    rows = by_name(result)
    assert rows["default"].budget < 0.5
    for name in ("random as default", "uniform as default"):
        assert rows[name].budget == pytest.approx(rows["default"].budget, abs=1e-12)


def test_json(result: BenchmarkResult) -> None:
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (data["format"], data["version"], data["benchmark"]) == (FORMAT, VERSION, "world")
    assert {"tokenprune", "world", "torch", "transformers", "python"} <= set(data["versions"])
    assert len(data["setting"]["weights_sha256"]) == 64
    assert data["setting"]["questions"] == 20
    default = next(row for row in data["rows"] if row["name"] == "default")
    assert tp.Pipeline.from_dict(default["pipeline"]) == tp.preset("default")
    assert default["accuracy"]["low"] <= default["accuracy"]["value"] <= default["accuracy"]["high"]


def test_twice_the_same(checkpoint: Path, result: BenchmarkResult) -> None:
    named = {name: tp.preset(name) for name in ("default", "baseline")}
    again = measure(checkpoint, pipelines=named, questions=20, blind=True)
    assert without_times(again) == without_times(result)


def without_times(result: BenchmarkResult) -> dict[str, Any]:
    data = result.to_dict()
    data["setting"] = {**data["setting"], "shared_seconds": None}
    data["rows"] = [{**row, "seconds": None} for row in data["rows"]]
    return data


def test_the_sweep_compares_at_equal_budgets(checkpoint: Path) -> None:
    result = measure(checkpoint, suite="sweep", questions=3)
    budgets: dict[str, set[float]] = {}
    for row in result.rows[1:]:
        budgets.setdefault(row.name.rpartition(" at ")[2], set()).add(round(row.budget, 12))
    assert list(budgets) == ["50 %", "25 %", "20 %", "15 %", "10 %"]
    assert all(len(spent) == 1 for spent in budgets.values())
    series = Counter(row.series for row in result.rows)
    assert series["stage 1"] == series["random"] == series["uniform"] == 5
    assert series["stage 2"] + sum(name.startswith("stage 2") for name in result.unreachable) == 5
    assert series["both"] + sum(name.startswith("both") for name in result.unreachable) == 5


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["table", "ablation"])
def test_the_long_suites_run(checkpoint: Path, suite: str) -> None:
    result = measure(checkpoint, suite=suite, questions=1)
    assert len(result.rows) > 20
    for row in result.rows:
        nominal = row.notes.get("nominal_budget")
        if nominal is not None:
            assert row.budget == pytest.approx(nominal, abs=0.05)


def test_right_answers_are_counted(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers every second question rightly, in other letters, and the others wrongly."""
    from tokenprune.bench.world_benchmark import answering

    asked = iter(ask_world(8))
    expected = Counter[str]()

    def oracle(loaded: Any, clip: Any, pipeline: Any = None, positions: str = "anchor") -> Any:
        questions = next(asked).questions
        right = [place % 2 == 0 for place in range(len(questions))]
        expected.update(question.kind for question, yes in zip(questions, right) if yes)
        texts = tuple(f" {q.answer.upper()}." if yes else "none" for q, yes in zip(questions, right))
        return answering.Answers(texts, (1.0,) * len(texts), (1.0,) * len(texts))

    monkeypatch.setattr(answering, "answer", oracle)
    (row,) = measure(checkpoint, questions=8).rows
    assert {kind: share.count for kind, share in row.kinds.items() if share.count} == dict(expected)
    assert 0 < row.accuracy.count == expected.total() < 8


def test_counts_that_depend_on_the_question_cannot_be_compared() -> None:
    with pytest.raises(tp.TokenPruneError, match="depend on the question"):
        world._spend([0.5, 0.25], world.Decoder(8, 4))


def test_progress_ends_at_the_end(checkpoint: Path) -> None:
    steps: list[tuple[int, int]] = []
    WorldBenchmark(QWEN25VL).run(
        BenchmarkRequest(model=str(checkpoint), questions=12), lambda done, total: steps.append((done, total))
    )
    total = steps[0][1]
    assert steps == [(done, total) for done in range(total + 1)]


def test_what_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="suite must be one of table, sweep, ablation"):
        measure(checkpoint, suite="all")
    with pytest.raises(InvalidValueError, match="'plain'"):
        measure(checkpoint, pipelines={"plain": tp.Pipeline()}, questions=1)
    with pytest.raises(InvalidValueError, match="layer 9"):
        measure(checkpoint, pipelines={"deep": tp.Pipeline([tp.AttnPrune(layer=9, keep=1)])}, questions=1)
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        measure(tmp_path)


def test_normalised_answers_of_the_world_stay_apart() -> None:
    for clip in ask_world(30):
        for question in clip.questions:
            assert len({normalised(option) for option in question.options}) == len(question.options)
