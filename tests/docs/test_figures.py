# SPDX-License-Identifier: Apache-2.0
"""The tables of the benchmarks page say what the committed results hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
RESULTS = PAGE.with_suffix("")
GRIDS = ("world-methods", "world-others", "world-newer", "world-presses")


def result(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def grid_lines(name: str) -> Iterator[str]:
    """A line a method: word / strict [95 % of strict] at each budget."""
    rows = [row for row in result(name)["rows"] if row.get("nominal_budget") is not None]
    for series in dict.fromkeys(row["series"] for row in rows):
        cells = [f"{percent(row['word'])} / {percent(row['accuracy'])}" for row in rows if row["series"] == series]
        spans = [f"[{span(row['accuracy'], 0, '-')}]" for row in rows if row["series"] == series]
        yield f"| {series} | {' | '.join(' '.join(pair) for pair in zip(cells, spans, strict=True))} |"


def preset_lines() -> Iterator[str]:
    """A line a preset and form: budget, word, strict with its interval, what is lost, chance at the same budget."""
    for row in result("world-presets")["rows"]:
        if row["series"] in ("plain", "random", "uniform"):
            continue
        name, strict, word = re.sub(r"^(\w+)", r"`\1`", row["name"]), row["accuracy"], row["word"]
        chance = "; ".join(comparison(counts) for counts in row["paired"].get("random", {}).values())
        yield (
            f"| {name} | {100 * row['layer_averaged_retained']:.1f} % "
            f"| {percent(word)} | {percent(strict)} [{span(strict, 1, ', ')}] "
            f"| {100 - 100 * word['value']:.1f} | {100 * (word['value'] - strict['value']):.1f} | {chance} |"
        )


def agree_cells() -> Iterator[str]:
    """What is said of each pipeline's answers on real clips."""
    for row in result("agree")["rows"]:
        equal, kl = row["equal"], row["kl"]
        between = " | " if " at " not in row["name"] else " / "
        yield (
            f"{100 * equal['value']:.0f} [{span(equal, 0, ', ')}]{between}"
            f"{kl['value']:.2f} [{kl['low']:.2f}, {kl['high']:.2f}]"
        )


def percent(share: dict[str, Any]) -> str:
    return f"{100 * share['value']:.1f}"


def span(share: dict[str, Any], digits: int, between: str) -> str:
    return between.join(f"{100 * share[end]:.{digits}f}" for end in ("low", "high"))


def comparison(counts: dict[str, Any]) -> str:
    p = counts["p"]
    return f"{counts['wins']}/{counts['losses']} (p {'< 1e-4' if p < 1e-4 else f'{p:.2g}'})"


@pytest.mark.parametrize("name", GRIDS)
def test_a_table_of_methods_holds_what_was_measured(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8").replace("`", "")
    missing = [line for line in grid_lines(name) if line.replace(" before the question", "") not in page]
    assert not missing


def test_the_table_of_presets_holds_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not [line for line in preset_lines() if line not in page]


def test_the_tables_of_agreement_hold_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not [cell for cell in agree_cells() if cell not in page]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_names_no_folder_of_the_machine_that_made_it(path: Path) -> None:
    assert not re.findall(r'[" ](?:/\w+){2,}', path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted(RESULTS.glob("world-*.json")), ids=lambda path: path.stem)
def test_the_command_of_a_result_stands_on_the_page(path: Path) -> None:
    command = json.loads(path.read_text(encoding="utf-8")).get("command", "")
    assert command.replace("'", '"') in PAGE.read_text(encoding="utf-8")
