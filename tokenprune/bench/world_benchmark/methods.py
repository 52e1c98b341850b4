# SPDX-License-Identifier: Apache-2.0
"""Every method before the LLM at the same exact budgets, with attention mass and without."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tokenprune.bench.benchmark import MethodGrid
from tokenprune.bench.world_benchmark.entries import Entry, Fixed, Suite
from tokenprune.errors import InvalidValueError
from tokenprune.messages import not_one_of
from tokenprune.operator import BEFORE_LLM, site_of
from tokenprune.pipeline import Pipeline
from tokenprune.plugins import default_registry

Masses = tuple[str | None, ...]

CHOSEN: Mapping[str, Mapping[str, Any]] = {"CDPruner": {"relevance": "text"}}
"""Parameters without which a method would need what no benchmark can give."""


def methods() -> dict[str, type]:
    """The operators before the LLM that can be given a budget, by name."""
    return {name: cls for name, cls in sorted(default_registry().operators.items()) if _is_method(name, cls)}


def grid_suite(grid: MethodGrid) -> Suite:
    """A row for each method, form and budget.

    Raises:
        InvalidValueError: an unknown method, or a budget that is not a fraction in (0, 1].
    """
    known = methods()
    names = tuple(known) if grid.names is None else grid.names
    for name in names:
        if name not in known:
            raise InvalidValueError(not_one_of("method", known, name))
    entries: list[Entry] = []
    for name in names:
        for budget in grid.budgets:
            operator = _at(name, known[name], budget)
            for pipeline in with_masses(Pipeline([operator]), grid.masses):
                series = name if pipeline.mass is None else f"{name} + mass"
                label = f"{series} at {100 * budget:g} %"
                entries.append(
                    Fixed(label, series, pipeline, nominal=budget, reseeded=hasattr(operator, "seed"), method=name)
                )
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


def _is_method(name: str, cls: type) -> bool:
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not hasattr(cls, "plan") or not {"keep_ratio", "keep"} <= fields:
        return False
    return site_of(_at(name, cls, 0.5)) == BEFORE_LLM


def _at(name: str, cls: type, budget: float) -> Any:
    return cls(keep_ratio=budget, **CHOSEN.get(name, {}))
