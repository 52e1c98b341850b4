# SPDX-License-Identifier: Apache-2.0
"""Every method at the same layer-averaged budgets, with attention mass and without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tokenprune.bench.benchmark import MethodGrid
from tokenprune.bench.world_benchmark.budgets import Decoder
from tokenprune.bench.world_benchmark.entries import Entry, Fixed, Pressed, Suite
from tokenprune.bench.world_benchmark.fitting import at_budget, at_ratio, series_of
from tokenprune.catalogue import Method, methods
from tokenprune.errors import InvalidValueError
from tokenprune.messages import not_one_of
from tokenprune.operator import BEFORE_LLM, SITES
from tokenprune.pipeline import Pipeline

Masses = tuple[str | None, ...]

BEFORE, ASKED = (BEFORE_LLM,), SITES
"""Sites of the methods whose ratio is a budget whatever the model, and of all that a benchmark can ask."""


def known_methods(sites: Sequence[str] = ASKED) -> dict[str, Method]:
    """The methods at these sites that can be given a budget; a form of one under the method's name and its own."""
    found = [each for each in methods() if each.site in sites and each.has_budget]
    return {each.title: each for each in found}


def grid_pipelines(grid: MethodGrid) -> dict[str, Pipeline]:
    """Row -> pipeline for each method before the LLM, form and budget, before any model is known.

    Raises:
        InvalidValueError: an unknown method, or a budget that is not a fraction in (0, 1].
    """
    return {
        label: form
        for name, chosen in _chosen(grid, known_methods(BEFORE)).items()
        for budget in grid.budgets
        for label, _, form in _forms(name, at_ratio(chosen, budget), budget, grid.masses)
    }


def grid_suite(grid: MethodGrid, decoder: Decoder) -> Suite:
    """A row for each method, form and layer-averaged budget; those that a model's layers cannot reach are named.

    Raises:
        InvalidValueError: an unknown method, or a budget that is not a fraction in (0, 1].
    """
    entries: list[Entry] = []
    unreachable: dict[str, str] = {}
    for name, chosen in _chosen(grid, known_methods()).items():
        for budget in grid.budgets:
            found = at_budget(chosen, budget, decoder)
            if isinstance(found, str):
                unreachable[_label(series_of(chosen), budget)] = found
                continue
            for label, series, form in _forms(series_of(chosen), found, budget, grid.masses):
                seeded = any(hasattr(operator, "seed") for operator in form)
                row = Pressed if form.presses else Fixed
                entries.append(row(label, series, form, nominal=budget, reseeded=seeded, method=name))
    return Suite(tuple(entries), unreachable)


def _chosen(grid: MethodGrid, known: Mapping[str, Method]) -> dict[str, Method]:
    names = tuple(known) if grid.names is None else grid.names
    for name in names:
        if name not in known:
            raise InvalidValueError(not_one_of("method", known, name))
    return {name: known[name] for name in names}


def _forms(series: str, pipeline: Pipeline, budget: float, masses: Masses) -> Iterator[tuple[str, str, Pipeline]]:
    """Row, series and pipeline with each of these masses."""
    for form in with_masses(pipeline, masses):
        mine = series if form.mass is None else f"{series} + mass"
        yield _label(mine, budget), mine, form


def _label(series: str, budget: float) -> str:
    return f"{series} at {100 * budget:g} %"


def named_suite(name: str, pipeline: Pipeline, masses: Masses) -> list[Fixed]:
    """A pipeline as it is, or in these forms; the one that is as it is keeps its name."""
    labels = {None: f"{name} without mass", "sizes": f"{name} + mass", pipeline.mass: name}
    forms = with_masses(pipeline, masses)
    return [Fixed(labels[form.mass], labels[form.mass], form) for form in forms]


def with_masses(pipeline: Pipeline, masses: Masses) -> Iterator[Pipeline]:
    """The pipeline with each of these masses; as it is where there are none, nothing is removed, or it is a press."""
    forms: Iterable[str | None] = masses if masses and len(pipeline) and not pipeline.presses else (pipeline.mass,)
    return (Pipeline(pipeline.operators, mass=mass) for mass in forms)
