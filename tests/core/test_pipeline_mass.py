# SPDX-License-Identifier: Apache-2.0
"""A pipeline holds whether it keeps attention mass, and so does its JSON."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import tokenprune as tp
from tokenprune.errors import InvalidValueError, PipelineFileError

pytestmark = pytest.mark.skipif(
    "mass" not in inspect.signature(tp.Pipeline).parameters, reason="tokenprune.Pipeline takes no mass yet"
)
OPERATORS = [tp.STMerge(tau=0.7), tp.AttnPrune(layer=1, keep_ratio=0.5)]
SIX = ("conservative", "default", "aggressive", "stage1_only", "stage2_only", "baseline")


def pipeline(*mass: Any) -> Any:
    return tp.Pipeline(OPERATORS, **dict(zip(["mass"], mass)))


def old_file(**changes: Any) -> dict[str, Any]:
    """What release 0.1 wrote."""
    operator = {"operator": "UniformSelect", "keep_ratio": 0.5, "keep": None}
    return {"format": "tokenprune.pipeline", "version": 1, "operators": [operator], **changes}


@pytest.mark.parametrize("mass", ["sizes", None])
def test_json_holds_mass(mass: str | None, tmp_path: Path) -> None:
    pipe = pipeline(mass)
    assert pipe.mass == mass
    described = pipe.to_dict()
    assert (described["version"], described["mass"]) == (2, mass)
    assert "mass" in json.loads(json.dumps(described))
    pipe.save(tmp_path / "p.json")
    for read in (tp.Pipeline.from_dict(described), tp.Pipeline.load(tmp_path / "p.json")):
        assert read == pipe
        assert read.mass == mass


def test_mass_tells_pipelines_apart() -> None:
    assert pipeline("sizes") != pipeline(None)
    assert pipeline("sizes") == pipeline("sizes")
    assert len({pipeline("sizes"), pipeline(None), pipeline()}) == 2


def test_left_out_it_is_none_for_operators_that_say_nothing() -> None:
    assert pipeline().mass is None
    assert tp.Pipeline().mass is None


@pytest.mark.skipif(not hasattr(tp, "Cover"), reason="there is no Cover yet")
def test_left_out_it_is_what_an_operator_says() -> None:
    """Resolved when built, so a file of it says so whatever later releases do."""
    cover = tp.Cover(keep_ratio=0.5)
    assert tp.Pipeline([cover]).mass == "sizes"
    assert tp.Pipeline([cover]).to_dict()["mass"] == "sizes"
    assert tp.Pipeline([cover], mass=None).mass is None
    assert tp.Pipeline.from_dict(tp.Pipeline([cover], mass=None).to_dict()).mass is None
    without = tp.Pipeline([cover]).to_dict()
    del without["mass"]
    assert tp.Pipeline.from_dict(without).mass is None


def test_files_without_the_key_mean_none(tmp_path: Path) -> None:
    for data in (old_file(), old_file(version=2)):
        assert tp.Pipeline.from_dict(data).mass is None
        (tmp_path / "old.json").write_text(json.dumps(data))
        assert tp.Pipeline.load(tmp_path / "old.json").mass is None
    assert tp.Pipeline.from_dict(old_file()) == tp.Pipeline([tp.UniformSelect(keep_ratio=0.5)])


@pytest.mark.parametrize("wrong", ["size", "", 1, True, ["sizes"]])
def test_other_values_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidValueError, match="mass"):
        pipeline(wrong)
    with pytest.raises(PipelineFileError, match="mass"):
        tp.Pipeline.from_dict(old_file(version=2, mass=wrong))


def test_mass_is_given_by_name() -> None:
    with pytest.raises(TypeError):
        tp.Pipeline(OPERATORS, "sizes")  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("name", SIX)
def test_presets_stay_without_mass_unless_asked_for(name: str) -> None:
    assert tp.preset(name).mass is None
    assert tp.preset(name, mass="sizes").mass == "sizes"
    assert tp.preset(name, mass="sizes").operators == tp.preset(name).operators


@pytest.mark.parametrize(
    ("keeps", "mass", "why"), [((4,), "sizes", "cannot be used with mass"), ((4, 2), None, "once")]
)
def test_presses_of_a_schedule_are_held_to_the_same(keeps: tuple[int, ...], mass: str | None, why: str) -> None:
    class Presses:
        def operators(self, depth: int) -> list[Any]:
            return [tp.KNorm(keep=keep) for keep in keeps]

    with pytest.raises(InvalidValueError, match=why):
        tp.Pipeline([Presses()], mass=mass).stages(8)
