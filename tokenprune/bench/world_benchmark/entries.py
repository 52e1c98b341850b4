# SPDX-License-Identifier: Apache-2.0
"""What can be measured: the plain model, a pipeline, or chance at the budget that a pipeline spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tokenprune.operators.random import RandomSelect
from tokenprune.operators.uniform import UniformSelect
from tokenprune.operators.uniform_prune import RandomPrune, UniformPrune
from tokenprune.pipeline import Pipeline

Method = Literal["random", "uniform"]
METHODS: tuple[Method, ...] = ("random", "uniform")
"""Ways to choose tokens without looking at them."""
Positions = Literal["anchor", "renumbered"]


@dataclass(frozen=True)
class Plain:
    """The plain model, without a session.

    Args:
        name: of the row.
        sees: whether it is shown the clip; if not, every visual token is a zero.
    """

    name: str
    sees: bool = True


@dataclass(frozen=True)
class Fixed:
    """One pipeline for all clips.

    Args:
        name: of the row.
        series: of the row.
        pipeline: the operators.
        positions: those of the tokens kept: an anchor's own, or, for comparison only, counted anew.
        nominal: the layer-averaged budget that it was made for.
        reseeded: whether operators with a ``seed`` get another one for each clip: its own.
        method: name of the method that is measured at several budgets.
    """

    name: str
    series: str
    pipeline: Pipeline
    positions: Positions = "anchor"
    nominal: float | None = None
    reseeded: bool = False
    method: str | None = None

    def pipeline_for(self, seed: int) -> Pipeline:
        """The pipeline for the clip of this seed."""
        if not self.reseeded:
            return self.pipeline
        seeded = [replace(each, seed=seed) if hasattr(each, "seed") else each for each in self.pipeline]  # type: ignore[type-var]
        return Pipeline(seeded, mass=self.pipeline.mass)


@dataclass(frozen=True)
class Pressed(Fixed):
    """One pipeline for all clips that presses a clip's cache before any question about it is asked.

    Within one prefill the first token of an answer, which in the world is all of it, would be the plain model's.
    """


@dataclass(frozen=True)
class Matched:
    """Random or uniform selection that spends on every clip exactly what another entry spent on it.

    Args:
        name: of the row.
        method: how tokens are chosen; also the series of the row.
        to: name of the other entry, which comes before.
        nominal: the layer-averaged budget that the other was made for.
    """

    name: str
    method: Method
    to: str
    nominal: float | None = None

    @property
    def series(self) -> str:
        """Of the row."""
        return self.method


Entry = Plain | Fixed | Matched


@dataclass(frozen=True)
class Suite:
    """Entries in order, each :class:`Matched` one after the entry it is matched to; and those that cannot be."""

    entries: tuple[Entry, ...]
    unreachable: Mapping[str, str] = field(default_factory=dict[str, str])

    def __add__(self, other: Suite) -> Suite:
        return Suite(self.entries + other.entries, {**self.unreachable, **other.unreachable})


def matched_to(fixed: Fixed) -> list[Entry]:
    """An entry, then random and uniform selection at its budget."""
    name = fixed.name
    matched = [Matched(f"{method} as {name}", method, name, fixed.nominal) for method in METHODS]
    return [fixed, *matched] if len(fixed.pipeline) else [fixed]


def spending(method: Method, spend: int, depth: int, seed: int) -> Pipeline:
    """Random or uniform selection by which all ``depth`` layers together see exactly ``spend`` visual tokens.

    All of it before the LLM; where ``spend`` is no multiple of the depth, one token is dropped after an early layer.

    Args:
        method: how tokens are chosen.
        spend: at least ``depth``.
        depth: number of decoder layers.
        seed: of the random choice.
    """
    count, rest = divmod(spend, depth)
    first = count + (rest > 0)
    if method == "random":
        select, prune = RandomSelect(keep=first, seed=seed), RandomPrune(max(rest - 1, 0), keep=count, seed=seed)
    else:
        select, prune = UniformSelect(keep=first), UniformPrune(max(rest - 1, 0), keep=count)
    return Pipeline([select, prune] if rest else [select])
