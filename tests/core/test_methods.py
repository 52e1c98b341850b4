# SPDX-License-Identifier: Apache-2.0
"""The table of methods: a row for everything that is installed, true to its class."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.builtin import tokenprune_operators
from tokenprune.catalogue import method
from tokenprune.cli.app import app
from tokenprune.signals import RULES

BUILTIN = {name: cls for name, cls in tokenprune_operators().items() if not hasattr(cls, "score")}


def rows(name: str) -> list[tp.Method]:
    return [row for row in tp.methods() if row.name == name]


@pytest.mark.parametrize("name", BUILTIN)
def test_every_builtin_operator_has_a_row_that_says_everything(name: str) -> None:
    [itself] = [row for row in rows(name) if not row.variant]
    assert itself.cls is BUILTIN[name]
    for row in rows(name):
        assert row.paper
        assert row.licence
        assert row.cost
        assert set(row.needs) <= set(RULES)
        assert row.summary.endswith(".")
        assert len(row.summary) < 200
        assert [parameter.name for parameter in row.parameters]
        json.dumps(row.to_dict())


@pytest.mark.parametrize(
    "name", [row.name for row in tp.methods() if row.paper.startswith("arXiv") and not row.variant]
)
def test_a_published_method_names_its_paper_what_differs_and_what_was_published(name: str) -> None:
    row = rows(name)[0]
    text = inspect.getdoc(row.cls) or ""
    assert row.paper in text
    assert "\nPublished" in text
    assert "\nDiffers from the " in text or "\nThe authors published no code" in text


def test_a_row_is_what_an_operator_of_the_class_says() -> None:
    found = {row.name: row for row in tp.methods() if not row.variant}
    assert (found["TOVA"].site, found["TOVA"].needs) == ("after_prefill", ("attention",))
    assert (found["KNorm"].site, found["KNorm"].needs) == ("after_prefill", ())
    assert (found["AttnPrune"].site, found["AttnPrune"].needs) == ("after_layer", ("attention",))
    assert (found["VisionZip"].site, found["VisionZip"].needs) == ("before_llm", ("encoder_column", "encoder_keys"))
    assert found["CDPruner"].needs == ("relevance",)
    assert all(found[name].has_budget for name in ("EVS", "STMerge", "AveragePool"))
    assert found["TOVA"].reads_question
    assert not found["KNorm"].reads_question
    assert not found["VisionZip"].reads_question


def test_rows_stand_in_the_order_of_a_prefill() -> None:
    sites = [row.site for row in tp.methods()]
    assert sites == sorted(sites, key=("before_llm", "after_layer", "after_prefill").index)
    assert not [row for row in tp.methods() if row.name.endswith("Score")]


def test_rows_are_frozen() -> None:
    row = method("EVS")
    assert hash(row) == hash(method("EVS"))
    with pytest.raises(FrozenInstanceError):
        row.paper = "another"  # type: ignore[misc]
    with pytest.raises(tp.InvalidValueError, match="did you mean 'SnapKV'"):
        method("SnpaKV")


def test_parameters_have_the_defaults_of_the_signature() -> None:
    found = {parameter.name: (parameter.type, parameter.default) for parameter in method("AttnPrune").parameters}
    assert found["layer"] == ("int | float", 0.36)
    assert found["scorer"][1] == "rope_causal"
    assert method("EVS").example.startswith(">>> tokens = ")


def test_what_is_registered_has_a_row() -> None:
    @tp.register
    @dataclass(frozen=True)
    class Nth:
        """Keep every nth token."""

        n: int  # no default: nothing can be made of the class alone
        site: ClassVar[str] = "after_prefill"

        def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
            raise NotImplementedError

    [row] = rows("Nth")
    assert row == tp.Method("Nth", Nth, "after_prefill", (), False, "", "", "", "")
    assert row.summary == "Keep every nth token."
    assert row.example == ""


def test_a_schedule_has_a_row_and_so_has_each_form_of_a_method() -> None:
    @tp.register
    @dataclass(frozen=True)
    class Steps:
        """Prune twice."""

        def operators(self, depth: int) -> Sequence[Any]:
            return [tp.UniformPrune(layer=1, keep=3), tp.AttnPrune(layer=depth - 1, keep=2)]

    @tp.register
    @dataclass(frozen=True)
    class Either:
        """Before the LLM, or at a layer."""

        layer: int | None = 2
        keep_ratio: float | None = None
        keep: int | None = None
        about: ClassVar[tp.About] = tp.About("a paper", "MIT", "N", ({"layer": None},))

        @property
        def site(self) -> str:
            return "before_llm" if self.layer is None else "after_layer"

        def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
            raise NotImplementedError

    [steps] = rows("Steps")
    assert (steps.site, steps.needs, steps.has_budget) == ("after_layer", ("attention",), False)
    found = {row.variant: row for row in rows("Either")}
    assert {variant: row.site for variant, row in found.items()} == {"": "after_layer", "layer=None": "before_llm"}
    assert found["layer=None"].settings == {"layer": None}
    assert "layer=None: before the LLM" in run("Either").output
    assert [form["variant"] for form in json.loads(run("Either", "--json").stdout)["forms"]] == ["layer=None"]
    assert found["layer=None"].has_budget
    assert method("Either").variant == ""


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["methods", *arguments])


def test_the_command_prints_a_row_a_method() -> None:
    lines = run().output.splitlines()
    for row in tp.methods():
        [line] = [line for line in lines if line.startswith(f"| {row.name} ")]
        assert row.paper in line
    found = json.loads(run("--json").stdout)["methods"]
    assert [row["name"] for row in found] == [row.name for row in tp.methods()]


def test_the_command_says_everything_about_one() -> None:
    said = run("SnapKV").output
    for part in ("acts: after the prefill", "reads: attention", "window: int = 32", "arXiv 2404.14469", ">>> "):
        assert part in said
    found = json.loads(run("SnapKV", "--json").stdout)
    assert found["parameters"][-1] == {"name": "kernel", "type": "int", "default": 5}
    assert json.loads(run("AttnPrune", "--json").stdout)["needs"] == ["attention"]


def test_the_command_knows_every_name_that_it_prints() -> None:
    said = run("DART(layer=None)").output
    assert said.startswith("DART(layer=None)  ")
    assert "acts: before the LLM" in said
    assert json.loads(run("DART(layer=None)", "--json").stdout)["site"] == "before_llm"
    for row in tp.methods():
        assert method(row.title) == row


def test_an_unknown_method_is_wrong_usage() -> None:
    failed = run("SnpaKV")
    assert failed.exit_code == 2
    assert "did you mean 'SnapKV'" in failed.stderr
