# SPDX-License-Identifier: Apache-2.0
"""Pipelines and pipeline files that somebody made to do harm, or that a careless program wrote."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tokenprune as tp
from tokenprune import plugins
from tokenprune.errors import InvalidValueError, PipelineFileError
from tokenprune.loading import Plugin, PluginInfo
from tokenprune.pipeline import MOST_BYTES, MOST_OPERATORS

DEFAULT = json.dumps(tp.preset("default").to_dict())
HEAD = '{"format": "tokenprune.pipeline", "version": 1, "operators": '


@dataclass(frozen=True)
class Holds:
    """A merger of a stranger's that takes anything."""

    value: Any = None

    def __post_init__(self) -> None:
        if self.value == "strange":
            raise AttributeError("no such thing")

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return tp.TokenPlan.identity(len(tokens))


@pytest.fixture
def holds_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = plugins.PluginRegistry.load(only=[])
    stranger = Plugin(PluginInfo("stranger"), operators={"Holds": Holds})
    monkeypatch.setattr(plugins, "_default", plugins.PluginRegistry((*registry.plugins, stranger)))
    return


def refused(content: str | bytes, tmp_path: Path) -> str:
    file = tmp_path / "p.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.monotonic()
    with pytest.raises(PipelineFileError) as error:
        tp.Pipeline.load(file)
    assert time.monotonic() - start < 5
    assert "p.json" in str(error.value)
    assert len(str(error.value)) < 600 + len(str(file))
    return str(error.value)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_json(opening: str, tmp_path: Path) -> None:
    assert "nests too deeply" in refused(opening * 100_000, tmp_path)
    assert "nests too deeply" in refused(f"{HEAD}{opening * 100_000}", tmp_path)


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(PipelineFileError, match=f"more than {MOST_BYTES} bytes"):
        tp.Pipeline.load(file)
    file.write_text(DEFAULT + " " * (MOST_BYTES - len(DEFAULT)))
    assert tp.Pipeline.load(file) == tp.preset("default")
    file.write_text(DEFAULT + " " * (MOST_BYTES + 1 - len(DEFAULT)))
    assert "more than" in refused(file.read_bytes(), tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero", "/dev/null", ""):
        with pytest.raises(PipelineFileError, match="it is no regular file"):
            tp.Pipeline.load(path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "loop", tmp_path / "missing", "nul\0byte", "x" * 100_000):
        with pytest.raises(PipelineFileError, match="cannot read pipeline file"):
            tp.Pipeline.load(path)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(DEFAULT)
    (tmp_path / "link.json").symlink_to(tmp_path / "p.json")
    assert tp.Pipeline.load(tmp_path / "link.json") == tp.preset("default")


@pytest.mark.parametrize("path", [None, 0, b"p.json", ["p.json"]])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(InvalidValueError, match="path must be a path"):
        tp.Pipeline.load(path)
    with pytest.raises(InvalidValueError, match="path must be a path"):
        tp.Pipeline().save(path)


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(DEFAULT, encoding="utf-8-sig")
    assert tp.Pipeline.load(tmp_path / "p.json") == tp.preset("default")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": 1, "format": 2}', "the key 'format' twice"),
        (HEAD + '[{"operator": "STMerge", "tau": 0.5, "tau": 0.6}]}', "the key 'tau' twice"),
        ("{" + ", ".join([f'"{"k" * 10**5}": 1'] * 2) + "}", "twice"),
        (HEAD + '[{"operator": "STMerge", "tau": 1e999}]}', "1e999 is no JSON number"),
        (HEAD + '[{"operator": "STMerge", "tau": -Infinity}]}', "-Infinity is no JSON number"),
        (HEAD + f'[{{"operator": "STMerge", "tau": {"9" * 4000}}}]}}', "STMerge: tau must lie"),
        (HEAD + f'[{{"operator": "STMerge", "tau": {"9" * 10**5}}}]}}', "cannot read"),
        (HEAD + f'[{{"operator": "STMerge", "tau": 1{"0" * 10**5}.5}}]}}', "is no JSON number"),
        (HEAD + f'[{{"operator": "{"N" * 10**5}"}}]}}', "unknown operator"),
        (HEAD + f'[{{"operator": "STMerge", "{"p" * 10**5}": 1}}]}}', "STMerge has no parameter"),
        (HEAD + f'[], "{"e" * 10**5}": 1}}', "extra"),
        (HEAD + '{"operator": "STMerge"}}', "needs a list \"operators\", got {'operator': 'STMerge'}"),
        (HEAD.replace("1", '"' + "v" * 10**5 + '"') + "[]}", "version must be 1"),
        (HEAD + '[{"operator": "STMerge", "\\ud800": 1}]}', "has no parameter '\\ud800'"),
        (HEAD + '[{"operator": "STMérge"}]}', "did you mean 'STMerge'?"),
        (HEAD + '[{"operator": "stmerge"}]}', "did you mean 'STMerge'?"),
        (HEAD + '[{"operator": "STMerge", "cluster_ration": 1}]}', "did you mean 'cluster_ratio'?"),
        (HEAD + '[{"operator": "AttnPrune", "keep": 1, "layer": true}]}', "layer must be"),
        (DEFAULT.encode("utf-16"), "cannot read"),
        ("", "cannot read"),
    ],
)
def test_other_files_are_refused_in_a_line(content: str | bytes, said: str, tmp_path: Path) -> None:
    assert said in refused(content, tmp_path)


def test_too_many_operators(tmp_path: Path) -> None:
    one = tp.UniformSelect(keep=3)
    assert len(tp.Pipeline([one] * MOST_OPERATORS)) == MOST_OPERATORS
    many = [{"operator": "UniformSelect", "keep": 3}] * (MOST_OPERATORS + 1)
    assert f"at most {MOST_OPERATORS} operators, got {MOST_OPERATORS + 1}" in refused(
        HEAD + json.dumps(many) + "}", tmp_path
    )
    with pytest.raises(InvalidValueError, match=f"at most {MOST_OPERATORS} operators"):
        tp.Pipeline(itertools.repeat(one))  # without an end


@pytest.mark.parametrize("operators", [3, None, tp.STMerge(), tp.STMerge, tp.Pipeline], ids=str)
def test_what_is_no_sequence_of_operators(operators: Any) -> None:
    with pytest.raises(InvalidValueError, match="operators must be a sequence of operators"):
        tp.Pipeline(operators)


def test_a_name_is_no_sequence_of_operators() -> None:
    with pytest.raises(InvalidValueError, match=r"got 'recommended'; tp\.preset makes a pipeline of a name"):
        tp.Pipeline("recommended")  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["missing/p.json", "file/p.json", "folder"])
def test_what_cannot_be_written_is_named_as_it_was_given(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=re.escape(f"{str(tmp_path / place)!r}") + "$"):
        tp.Pipeline().save(tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@dataclass(frozen=True)
class Choosing:
    layer: Any
    site: str = "after_layer"

    def plan(self, tokens: Any) -> Any: ...


@pytest.mark.parametrize("layer", [True, float("nan"), "3", None, -1, 1.0])
def test_a_strangers_layer_is_checked_when_the_pipeline_is_built(layer: Any) -> None:
    assert len(tp.Pipeline([Choosing(3)])) == 1
    with pytest.raises(InvalidValueError, match=r"Choosing\.layer must be"):
        tp.Pipeline([Choosing(layer)])


@pytest.mark.usefixtures("holds_is_known")
def test_nested_operators_have_a_bottom(tmp_path: Path) -> None:
    ring: Any = {"operator": "Holds"}
    ring["value"] = ring
    deep: Any = None
    for _ in range(50):
        deep = {"operator": "Holds", "value": deep}
    for description in (ring, deep):
        with pytest.raises(PipelineFileError, match="levels deep"):
            tp.Pipeline.from_dict({"format": "tokenprune.pipeline", "version": 1, "operators": [description]})
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidValueError, match="levels deep"):
        tp.Pipeline([Holds(endless)]).save(tmp_path / "p.json")
    nested = tp.Pipeline([Holds((Holds((Holds(1),)),))])
    assert tp.Pipeline.from_dict(nested.to_dict()) == nested


@pytest.mark.usefixtures("holds_is_known")
def test_whatever_a_strangers_operator_raises_is_named() -> None:
    described = {"operator": "Holds", "value": "strange"}
    with pytest.raises(PipelineFileError, match="Holds: no such thing"):
        tp.Pipeline.from_dict({"format": "tokenprune.pipeline", "version": 1, "operators": [described]})


def test_keys_of_any_kind_are_refused() -> None:
    data: Any = {"format": "tokenprune.pipeline", "version": 1, "operators": [], 1: 2, "x": 3, None: 4}
    with pytest.raises(PipelineFileError, match="got extra"):
        tp.Pipeline.from_dict(data)
