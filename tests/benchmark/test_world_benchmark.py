# SPDX-License-Identifier: Apache-2.0
"""The benchmark on a tiny random model: what it counts, at which budgets, and that it does so twice alike."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torchvision")

from qwen25vl.tiny import save_tiny

import tokenprune as tp
from tokenprune.bench.benchmark import FORMAT, VERSION, BenchmarkRequest, BenchmarkResult, MethodGrid, Row
from tokenprune.bench.paired import Paired
from tokenprune.bench.world_benchmark import WorldBenchmark, asking
from tokenprune.bench.world_benchmark import run as world
from tokenprune.bench.world_benchmark.asked import ask_world, normalised
from tokenprune.bench.world_benchmark.budgets import Decoder
from tokenprune.bench.world_benchmark.counting import compared_with
from tokenprune.bench.world_benchmark.entries import Fixed
from tokenprune.bench.world_benchmark.methods import BEFORE, grid_pipelines, grid_suite, known_methods
from tokenprune.errors import InvalidValueError, ModelLoadError
from tokenprune_qwen25vl.family import QWEN25VL


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


TOKENS = 32
"""Visual tokens of a clip, as this model's processor shows it."""


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


BEGUN: dict[str, Callable[[str], tuple[str, ...]]] = {
    "0": lambda right: ("none", "none either"),
    "1": lambda right: (right, f"{right}{right}"),
    "2": lambda right: (f" {right.upper()}", f" {right.upper()}."),
}


def test_right_answers_are_counted(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers every third question rightly, in other letters, every third too long, the others wrongly."""
    from tokenprune.bench.world_benchmark import answering

    asked = ask_world(8)
    expected, words = Counter[str](), Counter[str]()
    outcomes = ""

    def oracle(loaded: Any, clip: Any, pipeline: Any = None, positions: str = "anchor") -> Any:
        nonlocal outcomes
        questions = [question for clip in asked for question in clip.questions]
        mine = "201" * len(questions)
        begun = tuple(BEGUN[outcome](question.answer) for question, outcome in zip(questions, mine))
        outcomes += mine[: len(questions)]
        expected.update(question.kind for question, outcome in zip(questions, mine) if outcome == "2")
        words.update(question.kind for question, outcome in zip(questions, mine) if outcome != "0")
        return answering.Answers(begun, (1.0,) * len(begun), (1.0,) * len(begun))

    monkeypatch.setattr(answering, "answer", oracle)
    (row,) = measure(checkpoint, questions=8).rows
    assert {kind: share.count for kind, share in row.kinds.items() if share.count} == dict(expected)
    assert {kind: share.count for kind, share in row.kinds_word.items() if share.count} == dict(words)
    assert 0 < row.accuracy.count == expected.total() < row.word.count == words.total() < 8
    assert row.outcomes == outcomes
    assert row.to_dict()["outcomes"] == outcomes


def test_methods_at_exact_budgets_with_mass_and_without(checkpoint: Path) -> None:
    grid = MethodGrid(("Cover", "RandomSelect"), (0.25, 0.05))
    result = measure(checkpoint, methods=grid, questions=9, against=("plain", "Cover"))
    rows = by_name(result)
    named = [
        f"{name}{mass} at {budget} %" for name in grid.names or () for budget in (25, 5) for mass in ("", " + mass")
    ]
    assert rows.keys() == {"plain", *named}
    for row in result.rows[1:]:
        assert row.nominal is not None
        assert row.budget == pytest.approx(math.ceil(row.nominal * TOKENS) / TOKENS)
        pipeline = tp.Pipeline.from_dict(row.pipeline or {})
        assert (pipeline.mass == "sizes") == row.series.endswith(" + mass")
    assert set(rows["Cover at 5 %"].paired) == {"plain"}
    tests = rows["RandomSelect at 5 %"].paired
    assert set(tests) == {"plain", "Cover"}
    outcomes = [rows[name].outcomes for name in ("RandomSelect at 5 %", "Cover at 5 %")]
    words = [[outcome != "0" for outcome in each] for each in outcomes]
    assert tests["Cover"]["word"] == Paired.of(*words)


def test_every_method_that_has_a_budget_and_needs_nothing_from_outside_is_known() -> None:
    known = known_methods()
    assert {"Cover", "STMerge", "RandomSelect", "UniformSelect", "EVS", "CDPruner", "VisionZip"} <= set(known)
    assert {"AttnPrune", "FastV", "PyramidDrop", "DART", "DART(layer=None)", "HoliTomInner"} <= set(known)
    assert "SnapKV" in known
    assert "RopeCausalScore" not in known
    assert not {"AttnPrune", "DART", "PyramidDrop"} & set(known_methods(BEFORE))
    suite = grid_suite(MethodGrid(budgets=(0.5,)), Decoder(192, 28))
    assert len(suite.entries) == 2 * len(known) - 4  # a press cannot be used with mass
    assert suite.unreachable == {}


def test_before_a_model_is_known_there_are_the_methods_whose_ratio_is_the_budget() -> None:
    grid = MethodGrid(("Cover", "DART(layer=None)"), (0.25,))
    assert grid_pipelines(grid) == {
        "Cover at 25 %": tp.Pipeline([tp.Cover(keep_ratio=0.25)], mass=None),
        "Cover + mass at 25 %": tp.Pipeline([tp.Cover(keep_ratio=0.25)], mass="sizes"),
        "DART(layer=None) at 25 %": tp.Pipeline([tp.DART(layer=None, keep_ratio=0.25)]),
        "DART(layer=None) + mass at 25 %": tp.Pipeline([tp.DART(layer=None, keep_ratio=0.25)], mass="sizes"),
    }
    with pytest.raises(InvalidValueError, match="'FastV'"):
        grid_pipelines(MethodGrid(("FastV",), (0.25,)))


def test_methods_inside_the_llm_and_after_it_at_layer_averaged_budgets(checkpoint: Path) -> None:
    """What is measured is what was reckoned; what no count can reach is named with the reason, and not run."""
    names = ("AttnPrune", "FastV", "PyramidDrop", "SparseVLM", "V2Drop", "DART", "STTM", "FrameFusion", "RandomPrune")
    grid = MethodGrid((*names, "FlashVIDInner", "HoliTomInner", "Cover", "TOVA"), (0.8, 0.01), (None,))
    result = measure(checkpoint, methods=grid, questions=2, against=("FastV",))
    decoder = Decoder(TOKENS, result.setting["decoder_layers"])
    pressed = by_name(result)["TOVA before the question at 80 %"]
    assert (pressed.budget, pressed.retained) == (1.0, pytest.approx(math.ceil(0.8 * TOKENS) / TOKENS))
    assert pressed.notes["pressed"] == "before the question"
    for row in result.rows[1:]:
        if "TOVA" in row.name:
            continue
        assert row.nominal is not None
        assert row.pipeline is not None
        spent = decoder.spent_by(tp.Pipeline.from_dict(row.pipeline))
        assert spent is not None
        assert row.budget == pytest.approx(float(decoder.budget(spent)), abs=1e-6)
        assert row.budget <= math.ceil(row.nominal * TOKENS) / TOKENS + 1e-6
    at_80 = {f"{name} at 80 %" for name in (*names, "FlashVID+FlashVIDInner", "HoliTom+HoliTomInner", "Cover")}
    assert {row.name for row in result.rows} >= at_80 | {"Cover at 1 %"}
    assert "FastV at 1 %" in result.unreachable
    assert "a single token kept after layer 1 of" in result.unreachable["FastV at 1 %"]
    assert set(by_name(result)["DART at 80 %"].paired) == {"FastV"}


def test_chance_is_another_for_each_clip() -> None:
    (entry, _) = grid_suite(MethodGrid(("RandomSelect",), (0.1,)), Decoder(192, 8)).entries
    assert isinstance(entry, Fixed)
    plans = [next(iter(entry.pipeline_for(seed).mergers)) for seed in (5, 6)]
    assert plans == [tp.RandomSelect(keep_ratio=0.1, seed=5), tp.RandomSelect(keep_ratio=0.1, seed=6)]


def test_pipelines_with_mass_and_without(checkpoint: Path) -> None:
    named = {name: tp.preset(name) for name in ("default", "recommended", "baseline")}
    request = BenchmarkRequest(named, masses=(None, "sizes"), matched=False)
    names = [entry.name for entry in world.build_suite(request, world.Decoder(288, 8)).entries]
    assert names == ["plain", "default", "default + mass", "recommended without mass", "recommended", "baseline"]


@pytest.mark.parametrize("known", [set[int](), {1}, {0, 1, 2, 3, 4}])
def test_clips_are_asked_about_together_in_order(known: set[int]) -> None:
    clips = ask_world(40)
    done = {clip.scene.seed: None for place, clip in enumerate(clips) if place in known}
    found = asking.batches(clips, done)
    assert [clip for batch in found for clip in batch] == clips
    assert all(len(batch) == 1 or sum(len(clip.questions) for clip in batch) <= asking.ROWS for batch in found)
    assert all(len(batch) == 1 for batch in found if any(clip.scene.seed in done for clip in batch))
    assert len(found) < len(clips) or known


def test_alone_and_together_the_same_is_counted(
    checkpoint: Path, result: BenchmarkResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ROWS", 1)
    named = {name: tp.preset(name) for name in ("default", "baseline")}
    again = measure(checkpoint, pipelines=named, questions=20, blind=True)
    assert {name: row.outcomes for name, row in by_name(again).items()} == {
        name: row.outcomes for name, row in by_name(result).items()
    }


def test_what_a_row_is_compared_with() -> None:
    request = BenchmarkRequest(
        {"mine": tp.Pipeline([tp.Cover(keep_ratio=0.1)])}, methods=MethodGrid(("Cover", "EVS"), (0.25, 0.1))
    )
    entries = world.build_suite(request, world.Decoder(288, 8)).entries
    named = {entry.name: entry for entry in entries}

    def found(name: str, other: str) -> str | None:
        entry = compared_with(named[name], other, entries)
        return None if entry is None else entry.name

    assert found("mine", "plain") == "plain"
    assert found("plain", "plain") is None
    assert found("mine", "random") == "random as mine"
    assert found("mine", "EVS") is None
    assert found("EVS at 10 %", "Cover + mass") == "Cover + mass at 10 %"
    assert found("EVS at 10 %", "EVS") is None
    assert found("EVS at 10 %", "Cover at 25 %") == "Cover at 25 %"


def test_counts_that_depend_on_the_question_cannot_be_compared() -> None:
    with pytest.raises(tp.TokenPruneError, match="depend on the question"):
        asking._spend([0.5, 0.25], world.Decoder(8, 4))


def test_progress_ends_at_the_end(checkpoint: Path) -> None:
    steps: list[tuple[int, int]] = []
    WorldBenchmark(QWEN25VL).run(
        BenchmarkRequest(model=str(checkpoint), questions=12), lambda done, total: steps.append((done, total))
    )
    total = len(ask_world(12))
    assert steps[0] == (0, total)
    assert steps[-1] == (total, total)
    assert steps == sorted(steps)


def test_what_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="suite must be one of table, sweep, ablation"):
        measure(checkpoint, suite="all")
    with pytest.raises(InvalidValueError, match="method must be one of"):
        measure(checkpoint, methods=MethodGrid(("Covr",)), questions=1)
    with pytest.raises(InvalidValueError, match=r"against must be one of plain.*'moon'"):
        measure(checkpoint, questions=1, against=("moon",))
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
