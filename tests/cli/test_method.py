# SPDX-License-Identifier: Apache-2.0
"""A method by its name: one in ``run`` and ``show``, several in ``sweep``, with the parameters of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")
pytest.importorskip("jinja2")
pytest.importorskip("PIL")

from qwen25vl.tiny import save_tiny
from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.cli._method import axes_of, settings_of
from tokenprune.cli._output import UsageError
from tokenprune.cli._pipeline import PipelineChoice
from tokenprune.cli._sweep_grid import pipeline_of
from tokenprune.cli._sweep_options import GridOptions
from tokenprune.cli._sweep_view import best_first
from tokenprune.cli.app import app

BUNNY = Path(__file__).parents[1] / "data" / "bigbuckbunny.mp4"

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    fixed = ("--frames", "6", "--max-new-tokens", "2", "--model", str(checkpoint))
    return lambda command, *options: CliRunner().invoke(app, [command, str(BUNNY), "What?", *fixed, *options])


def chosen(**options: Any) -> tuple[str, tp.Pipeline]:
    return PipelineChoice(**options).resolve()


def test_one_method_is_a_pipeline() -> None:
    name, pipeline = chosen(method="SnapKV", keep_ratio=0.1, settings=["window=64", 'modalities=["video","image"]'])
    assert name == "SnapKV(keep_ratio=0.1, window=64, modalities=['video', 'image'])"
    assert pipeline == tp.Pipeline([tp.SnapKV(keep_ratio=0.1, window=64, modalities=("video", "image"))])
    assert chosen(method="Cover", keep_ratio=0.15)[1].mass == "sizes"
    assert chosen(method="STMerge")[1] == tp.Pipeline([tp.STMerge()])
    prune = tp.AttnPrune(layer=0.5, keep=3, scorer="content")
    assert chosen(method="AttnPrune", layer="0.5", settings=["keep=3", "scorer=content"])[1] == tp.Pipeline([prune])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "SnpaKV", "keep_ratio": 0.1}, "did you mean 'SnapKV'"),
        ({"method": "ContentScore"}, "method must be one of"),
        ({"method": "SnapKV"}, "give exactly one of keep_ratio"),
        ({"method": "SnapKV", "keep_ratio": 1.5}, "keep_ratio must lie in"),
        ({"method": "EVS", "keep_ratio": 0.1, "layer": "3"}, "a parameter of EVS must be one of keep_ratio, keep"),
        ({"method": "SnapKV", "keep_ratio": 0.1, "settings": ["kernel=4"]}, "SnapKV: kernel must be odd"),
        ({"method": "SnapKV", "settings": ["operator=EVS"]}, "a parameter of SnapKV must be one of"),
        ({"method": "SnapKV", "settings": ["window"]}, "--set must be PARAMETER=VALUE"),
        ({"method": "SnapKV", "settings": ["window=1", "window=2"]}, "each parameter once"),
        ({"method": "EVS", "keep_ratio": 0.1, "settings": ["keep_ratio=0.2"]}, "--keep-ratio and --set keep_ratio=..."),
        ({"method": "FastV", "keep_ratio": 0.1, "layer": "1", "settings": ["layer=2"]}, "--layer and --set layer=..."),
        ({"method": "DART(layer=None)", "keep_ratio": 0.1, "layer": "1"}, "a parameter of DART(layer=None) must be"),
        ({"preset": ""}, "preset must be one of"),
        ({"method": "EVS", "preset": "default"}, "choose one of --preset"),
        ({"method": "EVS", "pipeline": Path("p.json")}, "choose one of --preset"),
        ({"method": "EVS", "keep_ratio": 0.1, "tau": 0.8}, "choose one of --preset"),
        ({"settings": ["window=1"]}, "--set is for --method"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_wrong_usage(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        chosen(**options)


def test_a_form_of_a_method_is_named_as_the_table_names_it() -> None:
    name, pipeline = chosen(method="DART(layer=None)", keep_ratio=0.25)
    assert name == "DART(layer=None, keep_ratio=0.25)"
    assert pipeline == tp.Pipeline([tp.DART(layer=None, keep_ratio=0.25)])
    assert chosen(method="DART", keep_ratio=0.25, settings=["layer=None"]) == (
        "DART(keep_ratio=0.25, layer=None)",
        pipeline,
    )
    points = GridOptions(method="DART(layer=None),FastV", keep_ratio="0.5", layer="2").parse().points()
    assert [pipeline_of(point) for point in points] == [
        tp.Pipeline([tp.DART(layer=None, keep_ratio=0.5)]),
        tp.Pipeline([tp.FastV(layer=2, keep_ratio=0.5)]),
    ]


def test_values_are_json_or_python_or_words() -> None:
    assert settings_of(["a=1", "b=0.5", "c=null", "d=true", "e=[1,2]", "f=word", 'g="1"', "h=a=b", "i=1,2"]) == {
        "a": 1, "b": 0.5, "c": None, "d": True, "e": [1, 2], "f": "word", "g": "1", "h": "a=b", "i": "1,2",
    }  # fmt: skip
    assert settings_of(["a=None", "b=True", "c=('video',)"]) == {"a": None, "b": True, "c": ("video",)}
    assert axes_of(["a=1,2", "b=[1,2],[3]", "c=one,two", "d=1,none", "e=None,0.5"]) == {
        "a": (1, 2), "b": ([1, 2], [3]), "c": ("one", "two"), "d": (1, "none"), "e": (None, 0.5),
    }  # fmt: skip


def test_a_sweep_tries_each_method_with_what_it_has() -> None:
    options = GridOptions(method="EVS, SnapKV,AttnPrune", keep_ratio="0.5,0.1", layer="1", settings=["window=4,8"])
    points = list(options.parse().points())
    assert points == [
        *({"method": "EVS", "keep_ratio": ratio} for ratio in (0.5, 0.1)),
        *({"method": "SnapKV", "keep_ratio": ratio, "window": window} for ratio in (0.5, 0.1) for window in (4, 8)),
        *({"method": "AttnPrune", "keep_ratio": ratio, "layer": 1} for ratio in (0.5, 0.1)),
    ]
    assert pipeline_of(points[2]) == tp.Pipeline([tp.SnapKV(keep_ratio=0.5, window=4)])
    assert [point["keep_ratio"] for point in GridOptions(method="EVS").parse().points()] == [0.25, 0.1]
    counts = GridOptions(method="EVS,DTD", settings=["keep=3"]).parse().points()
    assert list(counts) == [{"method": "EVS", "keep": 3}, {"method": "DTD", "keep": 3}]
    pooled = GridOptions(method="AveragePool").parse().points()
    assert [pipeline_of(point) for point in pooled] == [
        tp.Pipeline([tp.AveragePool(keep_ratio=r)]) for r in (0.25, 0.1)
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "EVS,SnpaKV"}, "did you mean 'SnapKV'"),
        ({"method": "EVS", "layer": "1"}, "layer is a parameter of none of these methods: EVS"),
        ({"method": "EVS", "settings": ["window=1"]}, "window is a parameter of none"),
        ({"method": "EVS", "keep_ratio": "0.1", "settings": ["keep_ratio=0.2"]}, "leave one of them out"),
        ({"tau": ""}, "--tau must be numbers"),
        ({"segment_ratio": ""}, "--segment-ratio must be numbers"),
        ({"method": "EVS", "tau": "0.8"}, "are for the two stages"),
        ({"method": "EVS", "keep_ratio": "0.5,2"}, "keep_ratio must lie in"),
        ({"settings": ["window=1"]}, "--set is for --method"),
    ],
    ids=str,
)
def test_a_sweep_that_cannot_be_meant_is_wrong_usage(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        GridOptions(**options).parse()  # type: ignore[arg-type]


def test_points_of_any_kind_can_be_put_in_order() -> None:
    kinds: list[Any] = [{"tau": 0.9}, {"method": "EVS", "keep": 3}, {"tau": 0.7}, {"method": "DTD", "x": [1]}]
    entries = [{"point": point, "same_answer": True, "layer_averaged_retained": 0.5} for point in kinds]
    assert [entry["point"] for entry in best_first(entries)] == [kinds[3], kinds[1], kinds[2], kinds[0]]


def test_the_command_sweeps_methods_and_goes_on_where_it_was(run: Run) -> None:
    command = ("sweep", "--method", "EVS,KNorm,SnapKV", "--keep-ratio", "0.5", "--set", "window=4,8", "--json")
    done = run(*command)
    assert done.exit_code == 0, done.output
    entries = json.loads(done.stdout)["entries"]
    assert [entry["point"]["method"] for entry in entries] == ["EVS", "KNorm", "SnapKV", "SnapKV"]
    first = entries[0]
    assert {entry["visual_retained"] for entry in entries} == {first["visual_retained"]}
    assert [entry["layer_averaged_retained"] < 1 for entry in entries] == [True, False, False, False]
    assert json.loads(run(*command).stdout)["entries"] == entries
    table = run(*command[:-1]).stdout
    heading = next(line for line in table.splitlines() if line.startswith("|"))
    assert [name.strip() for name in heading.split("|")[1:4]] == ["method", "keep_ratio", "window"]
    assert Path("stage1_sweep_results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("method", "scored", "place"),
    [
        ("EVS", "scores: EVS", "before the LLM"),
        ("SnapKV", "share of layers and heads: SnapKV", "after the prefill, in any layer and head"),
    ],
)
def test_show_draws_its_scores(run: Run, method: str, scored: str, place: str) -> None:
    done = run("show", "--method", method, "--keep-ratio", "0.3", "-o", "out", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["pipeline"] == f"{method}(keep_ratio=0.3)"
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', Path("out/index.html").read_text(), re.DOTALL
    )
    assert found is not None
    data = json.loads(found[1])
    assert data["scored"] == scored
    assert data["steps"] == [f"{method} {place}"]
    assert None not in data["heat"]
    assert len(set(data["heat"])) > 2
    if method == "SnapKV":
        kept = [number for number, fate in enumerate(data["fate"]) if fate == 0]
        assert [number for number, share in enumerate(data["scores"]) if share] == kept
    assert Path("out/frames.png").exists()
