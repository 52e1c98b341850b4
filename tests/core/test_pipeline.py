# SPDX-License-Identifier: Apache-2.0
"""Pipelines: order is checked when built, and JSON brings back what was written."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tokenprune as tp
from tokenprune import plugins
from tokenprune.errors import InvalidValueError, PipelineFileError
from tokenprune.loading import Plugin, PluginInfo


@dataclass(frozen=True)
class Halve:
    """A merger of a stranger, with every kind of parameter."""

    steps: tuple[int, ...] = (1, 2)
    scorers: tuple[tp.TokenScorer, ...] = ()
    name: str | None = None
    factor: float = 0.5

    def __post_init__(self) -> None:
        if self.factor == 13:
            raise ValueError("thirteen is unlucky")

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return tp.TokenPlan.identity(len(tokens))


@pytest.fixture
def halve_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = plugins.PluginRegistry.load(only=[])
    stranger = Plugin(PluginInfo("stranger"), operators={"Halve": Halve})
    monkeypatch.setattr(plugins, "_default", plugins.PluginRegistry((*registry.plugins, stranger)))
    return


def described(*operators: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"format": "tokenprune.pipeline", "version": 1, "operators": list(operators), **changes}


PIPELINES = [
    tp.Pipeline(),
    tp.Pipeline([tp.STMerge(tau=0.7)]),
    tp.Pipeline([tp.STMerge(keep=100), tp.AttnPrune(layer=3, keep=7, modalities=("video", "image"))]),
    tp.Pipeline([tp.AttnPrune(0.25, 0.5, scorer="content"), tp.AttnPrune(0.5, 0.2, scorer=tp.KeyNormScore())]),
    tp.Pipeline([tp.UniformSelect(keep_ratio=0.5), tp.RandomPrune(layer=2, keep_ratio=0.5, seed=3)]),
]


@pytest.mark.parametrize("pipeline", PIPELINES, ids=str)
def test_json_brings_back_what_was_written(pipeline: tp.Pipeline, tmp_path: Path) -> None:
    assert tp.Pipeline.from_dict(pipeline.to_dict()) == pipeline
    assert tp.Pipeline.from_dict(json.loads(json.dumps(pipeline.to_dict()))) == pipeline
    pipeline.save(tmp_path / "p.json")
    assert tp.Pipeline.load(str(tmp_path / "p.json")) == pipeline


def test_the_file_is_plain_to_read(tmp_path: Path) -> None:
    tp.Pipeline([tp.AttnPrune(layer=0.36, keep_ratio=0.4)]).save(tmp_path / "p.json")
    data = json.loads((tmp_path / "p.json").read_text())
    assert (data["format"], data["version"], data["mass"]) == ("tokenprune.pipeline", 2, None)
    (operator,) = data["operators"]
    assert operator["operator"] == "AttnPrune"
    assert (operator["layer"], operator["keep_ratio"], operator["keep"]) == (0.36, 0.4, None)
    assert operator["scorer"]["operator"] == "RopeCausalScore"


@pytest.mark.usefixtures("halve_is_known")
def test_operators_in_tuples_survive(tmp_path: Path) -> None:
    pipeline = tp.Pipeline([Halve((3, 4), (tp.ContentScore(), tp.KeyNormScore()), "x", 0.25)])
    pipeline.save(tmp_path / "p.json")
    assert tp.Pipeline.load(tmp_path / "p.json") == pipeline


@pytest.mark.usefixtures("halve_is_known")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {"a": 1}, object(), b"x"])
def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(bad: Any, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    PIPELINES[1].save(file)
    with pytest.raises(InvalidValueError, match=r"Halve.factor cannot be written as JSON"):
        tp.Pipeline([Halve(factor=bad)]).save(file)
    assert tp.Pipeline.load(file) == PIPELINES[1]
    assert os.listdir(tmp_path) == ["p.json"]


def test_an_operator_that_is_no_dataclass_is_refused() -> None:
    class Plain:
        def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
            return tp.TokenPlan.identity(len(tokens))

    with pytest.raises(InvalidValueError, match="Plain is not a dataclass"):
        tp.Pipeline([Plain()]).to_dict()


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "p.json"
    PIPELINES[1].save(file)

    def interrupt(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        PIPELINES[2].save(file)
    assert tp.Pipeline.load(file) == PIPELINES[1]
    assert os.listdir(tmp_path) == ["p.json"]


def test_a_saved_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    PIPELINES[1].save(tmp_path / "p.json")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "p.json")}
    assert len(modes) == 1


MERGE = {"operator": "STMerge"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], '"format": "tokenprune.pipeline"'),
        ({}, '"format": "tokenprune.pipeline"'),
        (described(format="other"), '"format": "tokenprune.pipeline"'),
        (described(version=3), "version must be 1 or 2, got 3"),
        (described(version="1"), "version must be 1 or 2, got '1'"),
        (described(version=True), "version must be 1 or 2, got True"),
        (described(version=1.0), "version must be 1 or 2, got 1.0"),
        ({"format": "tokenprune.pipeline", "operators": []}, "version must be 1 or 2, got None"),
        (described(operators={}), 'a list "operators"'),
        (described(note="hello"), r"extra \['note'\]"),
        (described("STMerge"), "an object with a name"),  # type: ignore[arg-type]
        (described({"tau": 0.8}), "an object with a name"),
        (described({"operator": 3}), "an object with a name"),
        (described({"operator": "Nope"}), "unknown operator 'Nope'; known are .*STMerge"),
        (described({**MERGE, "teu": 0.8}), "STMerge has no parameter 'teu'; it has tau"),
        (described({**MERGE, "tau": "0.8"}), "STMerge: tau must be"),
        (described({**MERGE, "tau": None}), "STMerge: tau must be"),
        (described({**MERGE, "tau": [0.8]}), "STMerge: tau must be"),
        (described({**MERGE, "tau": True}), "STMerge: tau must be"),
        (described({**MERGE, "tau": float("nan")}), "STMerge: tau must"),
        (described({**MERGE, "tau": 7}), "STMerge: tau must"),
        (described({"operator": "AttnPrune", "keep_ratio": 0.5, "layer": 1.0}), "AttnPrune: layer must be"),
        (described({"operator": "AttnPrune", "keep_ratio": 0.5, "scorer": {"operator": "Nope"}}), "unknown operator"),
        (described({"operator": "AttnPrune", "keep_ratio": 0.5, "scorer": MERGE}), "AttnPrune: scorer must be"),
        (described({"operator": "AttnPrune", "keep_ratio": 0.5, "scorer": {"a": 1}}), "an object with a name"),
        (described({"operator": "RopeCausalScore"}), "must be an operator.*got RopeCausalScore"),
        (described(MERGE, MERGE), "must be the first operator"),
    ],
)
def test_other_descriptions_are_refused(data: Any, message: str) -> None:
    with pytest.raises(PipelineFileError, match=message):
        tp.Pipeline.from_dict(data)


@pytest.mark.usefixtures("halve_is_known")
def test_a_strangers_plain_value_error_is_named() -> None:
    with pytest.raises(PipelineFileError, match="Halve: thirteen is unlucky"):
        tp.Pipeline.from_dict(described({"operator": "Halve", "factor": 13}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot read pipeline file"),
        (b"\xff\xfe", "cannot read pipeline file"),
        (json.dumps(described({**MERGE, "tau": float("nan")})).encode(), "NaN is no JSON number"),
        (json.dumps(described(version=9)).encode(), "version must be 1 or 2, got 9"),
        (None, "cannot read pipeline file"),
    ],
)
def test_the_error_names_the_file(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "spoilt.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PipelineFileError, match=message) as error:
        tp.Pipeline.load(file)
    assert "spoilt.json" in str(error.value)


def select(layer: int | float) -> tp.UniformPrune:
    return tp.UniformPrune(layer=layer, keep_ratio=0.5)


@pytest.mark.parametrize(
    ("operators", "message"),
    [
        ([tp.UniformSelect(keep=3), tp.STMerge()], "STMerge reads the full token grid, so it must be the first"),
        ([select(3), tp.STMerge()], "STMerge acts before the LLM and cannot follow"),
        ([select(3), select(3)], r"strictly increasing layers, got \[3, 3\]"),
        ([select(5), select(0.5), select(4)], r"strictly increasing layers, got \[5, 0.5, 4\]"),
        ([select(0.5), select(0.4)], r"strictly increasing layers, got \[0.5, 0.4\]"),
        ([tp.STMerge], "must be an operator, got the class STMerge"),
        (["STMerge"], r"operators\[0\] must be an operator.*got str"),
        ([tp.STMerge(), tp.KeyNormScore()], r"operators\[1\] must be an operator.*got KeyNormScore"),
    ],
)
def test_an_impossible_order_is_refused(operators: list[Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        tp.Pipeline(operators)


def test_layers_are_checked_again_once_the_depth_is_known() -> None:
    pipeline = tp.Pipeline([select(3), select(0.36)])
    assert pipeline.layers(28) == [3, 10]
    with pytest.raises(InvalidValueError, match=r"strictly increasing layers, got \[3, 3\]"):
        pipeline.layers(10)
    with pytest.raises(InvalidValueError, match="beyond the model's 3 decoder layers"):
        pipeline.layers(3)


def test_operators_are_told_apart() -> None:
    pipeline = tp.Pipeline([tp.STMerge(), tp.UniformSelect(keep=9), select(0.2), select(0.6)])
    assert pipeline.mergers == pipeline.operators[:2]
    assert pipeline.selectors == pipeline.operators[2:]
    assert (len(pipeline), list(pipeline)) == (4, list(pipeline.operators))
