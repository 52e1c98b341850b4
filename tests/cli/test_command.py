# SPDX-License-Identifier: Apache-2.0
"""How a function becomes a command: groups of options, outcomes for people and programs, wrong usage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from tokenprune import cli
from tokenprune.cli._command import command
from tokenprune.cli._output import Output, UsageError, wrong_usage
from tokenprune.errors import InvalidValueError


@dataclass(frozen=True)
class Paint:
    """A group."""

    colour: Annotated[str, typer.Option(help="Of the wall.")] = "red"

    def __post_init__(self) -> None:
        if self.colour == "plaid":
            raise UsageError("--colour must be plain,\ngot plaid")


@dataclass(frozen=True, kw_only=True)
class Wall:
    """A group with an argument and a group within it."""

    name: Annotated[str, typer.Argument(help="Which wall.")]
    paint: Paint


@dataclass(frozen=True)
class Painted:
    wall: Wall
    coats: int

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.wall.name, "colour": self.wall.paint.colour, "coats": self.coats}

    def render(self) -> None:
        print(f"{self.wall.name} is {self.wall.paint.colour}")  # noqa: T201


def paint(wall: Wall, *, coats: Annotated[int, typer.Option("--coats", min=0)] = 2) -> Painted:
    """Paint a wall."""
    if not coats:
        with wrong_usage():
            raise InvalidValueError("coats must be at least 1, got 0")
    return Painted(wall, coats)


def invoke(*arguments: str) -> Any:
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command(paint))
    return CliRunner().invoke(app, list(arguments))


def test_a_group_is_spread_and_given_whole() -> None:
    assert invoke("north").stdout == "north is red\n"
    assert invoke("north", "--colour", "blue").stdout == "north is blue\n"
    assert json.loads(invoke("north", "--coats", "3", "--json").stdout) == {
        "name": "north",
        "colour": "red",
        "coats": 3,
    }


def test_help_knows_all_options() -> None:
    said = invoke("--help").stdout
    for part in ("Paint a wall.", "--colour", "Of the wall.", "--coats", "--json", "--debug"):
        assert part in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--colour", "plaid"), "--colour must be plain, got plaid"),
        (("--coats", "0"), "coats must be at least 1, got 0"),
    ],
)
def test_wrong_usage_of_a_group_or_found_in_the_body(options: tuple[str, ...], message: str) -> None:
    done = invoke("north", *options)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"tokenprune: {message}\n")
    done = invoke("north", *options, "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout) == {"error": {"type": "UsageError", "message": message}}


def test_two_options_of_one_name_are_refused() -> None:
    def body(one: Paint, other: Paint) -> Painted:
        raise NotImplementedError

    with pytest.raises(ValueError, match="colour"):
        command(body)


def test_only_one_file_knows_how_an_outcome_is_shown_and_none_is_long() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in Path(cli.__file__).parent.glob("*.py")}
    assert [name for name, text in texts.items() if "as_json" in text] == ["_output.py"]
    assert [name for name, text in texts.items() if len(text.splitlines()) >= 150] == []


def test_what_arguments_mean_that_were_not_parsed() -> None:
    assert Output.guess(["run", "--json"]) == Output(as_json=True)
    assert Output.guess(["run"]) == Output()
