# SPDX-License-Identifier: Apache-2.0
"""Every method before the LLM at the same exact budgets, with attention mass and without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tokenprune.bench.benchmark import MethodGrid
from tokenprune.bench.world_benchmark.entries import Entry, Fixed, Suite
from tokenprune.catalogue import Method, methods
from tokenprune.errors import InvalidValueError
from tokenprune.messages import not_one_of
from tokenprune.operator import BEFORE_LLM
from tokenprune.pipeline import Pipeline

Masses = tuple[str | None, ...]

CHOSEN: Mapping[str, Mapping[str, Any]] = {"CDPruner": {"relevance": "text"}}
"""Parameters without which a method would need what no benchmark can give."""


def known_methods() -> dict[str, Method]:
    """The methods before the LLM that can be given a budget; a form of one under the method's name and its own."""
    found = [each for each in methods() if each.site == BEFORE_LLM and each.has_budget]
    return {f"{each.name}({each.variant})" if each.variant else each.name: each for each in found}


def grid_suite(grid: MethodGrid) -> Suite:
    """A row for each method, form and budget.

    Raises:
        InvalidValueError: an unknown method, or a budget that is not a fraction in (0, 1].
    """
    known = known_methods()
    names = tuple(known) if grid.names is None else grid.names
    for name in names:
        if name not in known:
            raise InvalidValueError(not_one_of("method", known, name))
    entries: list[Entry] = []
    for name in names:
        for budget in grid.budgets:
            given = {**known[name].settings, **CHOSEN.get(name, {})}
            operator = known[name].cls(keep_ratio=budget, **given)
            for pipeline in with_masses(Pipeline([operator]), grid.masses):
                series = name if pipeline.mass is None else f"{name} + mass"
                label = f"{series} at {100 * budget:g} %"
                seeded = hasattr(operator, "seed")
                entries.append(Fixed(label, series, pipeline, nominal=budget, reseeded=seeded, method=name))
    return Suite(tuple(entries))


def named_suite(name: str, pipeline: Pipeline, masses: Masses) -> list[Fixed]:
    """A pipeline as it is, or in these forms; the one that is as it is keeps its name."""
    labels = {None: f"{name} without mass", "sizes": f"{name} + mass", pipeline.mass: name}
    forms = with_masses(pipeline, masses)
    return [Fixed(labels[form.mass], labels[form.mass], form) for form in forms]


def with_masses(pipeline: Pipeline, masses: Masses) -> Iterator[Pipeline]:
    """The pipeline with each of these masses; as it is where there are none, or nothing is removed."""
    forms: Iterable[str | None] = masses if masses and len(pipeline) else (pipeline.mass,)
    return (Pipeline(pipeline.operators, mass=mass) for mass in forms)
