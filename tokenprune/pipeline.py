# SPDX-License-Identifier: Apache-2.0
"""An ordered tuple of operators, checked when built."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenprune.errors import InvalidValueError, PipelineFileError, TokenPruneError
from tokenprune.files import write_text
from tokenprune.messages import shown
from tokenprune.operator import (
    AFTER_LAYER,
    AFTER_PREFILL,
    BEFORE_LLM,
    SITES,
    Operator,
    Schedule,
    layer_of,
    modalities_of,
    needs_of,
    reads_of,
    site_of,
)
from tokenprune.operator_json import build, describe
from tokenprune.stage import Stage
from tokenprune.strict_json import read_json

FORMAT = "tokenprune.pipeline"
VERSION = 2
MASSES = ("sizes", None)
MOST_OPERATORS = 64
MOST_BYTES = 2**20
"""Of a file; the largest pipeline takes a few thousand."""


class _LeftOut:
    """The mark of an argument that was not given."""


LEFT_OUT = _LeftOut()


@dataclass(frozen=True, init=False)
class Pipeline:
    """Operators in the order they act: before the LLM, then at strictly increasing layers, then on the finished cache.

    >>> pipe = Pipeline([tp.STMerge(keep_ratio=0.5), tp.AttnPrune(layer=0.36, keep_ratio=0.4)])
    >>> len(pipe), pipe.mass
    (2, None)

    Args:
        operators: up to 64 operators and schedules; none at all is the plain model.
        mass: ``"sizes"``: in attention each kept token counts for as many tokens as it stands for, merged into it or
            dropped and given to it; None: for one. Left out: what an operator's class says, else None.

    Raises:
        InvalidValueError: they are too many, something is no operator, operators do not follow the order of a prefill,
            one that needs the full grid is not the first, two stand at layers that do not increase, or ``mass`` is not
            allowed.
    """

    operators: tuple[Operator | Schedule, ...]
    mass: str | None

    def __init__(
        self, operators: Iterable[Operator | Schedule] = (), *, mass: str | _LeftOut | None = LEFT_OUT
    ) -> None:
        if isinstance(operators, (str, type)) or not isinstance(operators, Iterable):
            hint = "; tp.preset makes a pipeline of a name" if isinstance(operators, str) else ""
            raise InvalidValueError(f"operators must be a sequence of operators, got {shown(operators)}{hint}")
        given = tuple(itertools.islice(operators, MOST_OPERATORS + 1))  # an iterator might never end
        if len(given) > MOST_OPERATORS:
            raise InvalidValueError(f"a pipeline must have at most {MOST_OPERATORS} operators, but more are given")
        object.__setattr__(self, "operators", given)
        object.__setattr__(self, "mass", self._wish() if isinstance(mass, _LeftOut) else mass)
        if self.mass not in MASSES:
            raise InvalidValueError(f'mass must be "sizes" or None, got {shown(self.mass)}')
        for place, operator in enumerate(self.operators):
            _check_operator(place, operator)
        _check_order([o for o in self.operators if not isinstance(o, Schedule)])
        _check_layers([layer_of(o) for o in self.selectors])
        _check_presses(self.presses, self.mass)

    @property
    def mergers(self) -> tuple[Operator, ...]:
        """The operators before the LLM; those of schedules are known only with a model's depth."""
        return self._at(BEFORE_LLM)

    @property
    def selectors(self) -> tuple[Operator, ...]:
        """The operators inside the LLM, likewise."""
        return self._at(AFTER_LAYER)

    @property
    def presses(self) -> tuple[Operator, ...]:
        """The operators on the finished cache, likewise."""
        return self._at(AFTER_PREFILL)

    def stages(self, depth: int, readable: Collection[int] | None = None) -> list[Stage]:
        """Every operator at its place in a decoder of ``depth`` layers, schedules written out.

        Args:
            depth: number of layers.
            readable: layers whose attention can be read; None: all of them.

        Raises:
            InvalidValueError: a layer lies beyond the depth, has no attention for an operator that reads it, the
                operators are out of order, or those of a schedule press with mass, or more than once.
        """
        stages: list[Stage] = []
        for place, entry in enumerate(self.operators):
            if isinstance(entry, Schedule):
                stages += [Stage.of(operator, depth, place, readable) for operator in entry.operators(depth)]
            else:
                stages.append(Stage.of(entry, depth, readable=readable))
        _check_order([stage.operator for stage in stages])
        _check_layers([stage.layer for stage in stages if stage.layer is not None])
        _check_presses([stage.operator for stage in stages if stage.site == AFTER_PREFILL], self.mass)
        return stages

    def layers(self, depth: int) -> list[int]:
        """0-based layer of each operator inside a decoder of ``depth`` layers; raises as :meth:`stages` does."""
        return [stage.layer for stage in self.stages(depth) if stage.layer is not None]

    def _at(self, site: str) -> tuple[Operator, ...]:
        return tuple(o for o in self.operators if not isinstance(o, Schedule) and site_of(o) == site)

    def _wish(self) -> str | None:
        wishes = (getattr(operator, "mass", None) for operator in self.operators)
        return next((wish for wish in wishes if wish is not None), None)

    def __iter__(self) -> Iterator[Operator | Schedule]:
        return iter(self.operators)

    def __len__(self) -> int:
        return len(self.operators)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description: format, version, mass and each operator's name and parameters."""
        described = [describe(operator) for operator in self.operators]
        return {"format": FORMAT, "version": VERSION, "mass": self.mass, "operators": described}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Pipeline:
        """Build the pipeline that :meth:`to_dict` described.

        Raises:
            PipelineFileError: wrong format or version, an unknown operator, unknown or wrongly typed parameters.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise PipelineFileError(f'a pipeline must be an object with "format": "{FORMAT}"')
        version = data.get("version")
        if type(version) is not int or not 1 <= version <= VERSION:  # True and 1.0 equal 1
            raise PipelineFileError(f"pipeline version must be 1 or {VERSION}, got {shown(version)}")
        operators = data.get("operators")
        known = ("format", "version", "operators", *(["mass"] if version > 1 else []))
        unknown = [key for key in data if key not in known]
        if not isinstance(operators, list):
            raise PipelineFileError(f'a pipeline needs a list "operators", got {shown(operators)}')
        if unknown:
            raise PipelineFileError(f"a pipeline has only {', '.join(known)}, got extra {shown(unknown)}")
        if len(operators) > MOST_OPERATORS:
            raise PipelineFileError(f"a pipeline must have at most {MOST_OPERATORS} operators, got {len(operators)}")
        try:
            return cls([build(description) for description in operators], mass=data.get("mass"))
        except PipelineFileError:
            raise
        except (TokenPruneError, TypeError) as error:
            raise PipelineFileError(str(error)) from error

    def save(self, path: str | Path) -> None:
        """Write the pipeline as JSON; the file appears whole or not at all.

        Raises:
            InvalidValueError: an operator has a parameter that JSON cannot hold; nothing is written.
        """
        _check_path(path)
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Pipeline:
        """Read a pipeline written by :meth:`save`, of at most 1 MiB.

        Raises:
            PipelineFileError: the file cannot be read as a pipeline; the message names it.
        """
        _check_path(path)
        try:
            data = read_json(path, MOST_BYTES)
        except (OSError, ValueError) as error:
            raise PipelineFileError(f"cannot read pipeline file {path}: {error}") from error
        try:
            return cls.from_dict(data)
        except PipelineFileError as error:
            raise PipelineFileError(f"pipeline file {path}: {error}") from error


def _check_operator(place: int, operator: object) -> None:
    """Raise :class:`InvalidValueError` unless this is an operator or a schedule, whose own words are in order."""
    if isinstance(operator, type):  # a class has the methods, too
        raise InvalidValueError(f"operators[{place}] must be an operator, got the class {operator.__name__}")
    if isinstance(operator, Schedule):
        return
    if not isinstance(operator, Operator):
        raise InvalidValueError(
            f"operators[{place}] must be an operator, with a plan(tokens) method, or a schedule, with "
            f"operators(depth), got {type(operator).__name__}"
        )
    needs_of(operator)
    reads_of(operator)
    modalities_of(operator)
    if site_of(operator) == AFTER_LAYER:
        layer_of(operator)


def _check_order(operators: Sequence[Operator]) -> None:
    """Raise unless the operators act in the order of a prefill."""
    for place, (earlier, later) in enumerate(itertools.pairwise([None, *operators])):
        name = type(later).__name__
        if earlier is not None and SITES.index(site_of(later)) < SITES.index(site_of(earlier)):
            where = {BEFORE_LLM: "before the LLM", AFTER_LAYER: "inside the LLM"}[site_of(later)]
            other = {AFTER_LAYER: "inside it", AFTER_PREFILL: "on the finished cache"}[site_of(earlier)]
            raise InvalidValueError(f"{name} acts {where} and cannot follow an operator {other}")
        if place and getattr(later, "needs_full_grid", False):
            raise InvalidValueError(f"{name} reads the full token grid, so it must be the first operator")


def _check_presses(presses: Sequence[Operator], mass: str | None) -> None:
    """Raise unless the finished cache is pressed once at most, and never with mass."""
    if len(presses) > 1:
        raise InvalidValueError("a pipeline presses the finished cache once, but several of its operators would")
    if mass is not None and presses:
        name = type(presses[0]).__name__
        raise InvalidValueError(f"{name} cuts each layer's cache by itself, so it cannot be used with mass")


def _check_layers(layers: Sequence[int | float]) -> None:
    for kind in (int, float):  # an index and a fraction can be compared only once the depth is known
        for earlier, later in itertools.pairwise(layer for layer in layers if isinstance(layer, kind)):
            if earlier >= later:
                raise InvalidValueError(
                    f"operators inside the LLM must stand at strictly increasing layers, got {shown(list(layers))}"
                )


def _check_path(path: object) -> None:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidValueError(f"path must be a path, got {shown(path)}")
