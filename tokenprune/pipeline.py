# SPDX-License-Identifier: Apache-2.0
"""An ordered tuple of operators, checked when built, that can be written to and read from JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenprune.depth import resolve_layer
from tokenprune.errors import InvalidValueError, PipelineFileError, TokenPruneError
from tokenprune.files import write_text
from tokenprune.protocols import Operator, TokenMerger, TokenSelector

FORMAT = "tokenprune.pipeline"
VERSION = 1


@dataclass(frozen=True, init=False)
class Pipeline:
    """Operators in the order they act: mergers before the LLM, then selectors at strictly increasing layers.

    Args:
        operators: any number of operators; none at all is the plain model.

    Raises:
        InvalidValueError: something is no operator, a merger follows a selector, a merger that needs the full grid
            is not the first, or two selectors do not stand at strictly increasing layers.
    """

    operators: tuple[Operator, ...]

    def __init__(self, operators: Iterable[Operator] = ()) -> None:
        object.__setattr__(self, "operators", tuple(operators))
        selectors_began = False
        for place, operator in enumerate(self.operators):
            name = type(operator).__name__
            if isinstance(operator, type):  # a class has the methods, too
                raise InvalidValueError(f"operators[{place}] must be an operator, got the class {operator.__name__}")
            if isinstance(operator, TokenSelector):
                selectors_began = True
            elif not isinstance(operator, TokenMerger):
                raise InvalidValueError(
                    f"operators[{place}] must be a TokenMerger, with a plan(tokens) method, or a TokenSelector, "
                    f"got {name}"
                )
            elif selectors_began:
                raise InvalidValueError(f"{name} acts before the LLM and cannot follow an operator inside it")
            elif getattr(operator, "needs_full_grid", False) and place > 0:
                raise InvalidValueError(f"{name} reads the full token grid, so it must be the first operator")
        self._check_order([s.layer for s in self.selectors])

    @property
    def mergers(self) -> tuple[TokenMerger, ...]:
        """The operators before the LLM."""
        return tuple(o for o in self.operators if not isinstance(o, TokenSelector))

    @property
    def selectors(self) -> tuple[TokenSelector, ...]:
        """The operators inside the LLM."""
        return tuple(o for o in self.operators if isinstance(o, TokenSelector))

    def layers(self, depth: int) -> list[int]:
        """0-based layer of each selector in a decoder of ``depth`` layers; raises if beyond it or out of order."""
        layers = [resolve_layer(selector.layer, depth) for selector in self.selectors]
        self._check_order(layers)
        return layers

    def __iter__(self) -> Iterator[Operator]:
        return iter(self.operators)

    def __len__(self) -> int:
        return len(self.operators)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description: format, version and each operator's name and parameters."""
        return {"format": FORMAT, "version": VERSION, "operators": [_describe(o) for o in self.operators]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Pipeline:
        """Build the pipeline that :meth:`to_dict` described.

        Raises:
            PipelineFileError: wrong format or version, an unknown operator, unknown or wrongly typed parameters.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise PipelineFileError(f'a pipeline must be an object with "format": "{FORMAT}"')
        version = data.get("version")
        if type(version) is not int or version != VERSION:  # True and 1.0 equal 1
            raise PipelineFileError(f"pipeline version must be {VERSION}, got {version!r}")
        operators = data.get("operators")
        unknown = sorted(set(data) - {"format", "version", "operators"})
        if not isinstance(operators, list) or unknown:
            raise PipelineFileError(f'a pipeline needs a list "operators" and nothing else, got extra {unknown}')
        try:
            return cls(_build(description) for description in operators)
        except PipelineFileError:
            raise
        except (TokenPruneError, TypeError) as error:
            raise PipelineFileError(str(error)) from error

    def save(self, path: str | Path) -> None:
        """Write the pipeline as JSON; the file appears whole or not at all.

        Raises:
            InvalidValueError: an operator has a parameter that JSON cannot hold; nothing is written.
        """
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Pipeline:
        """Read a pipeline written by :meth:`save`; raises :class:`PipelineFileError` naming the file."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        except (OSError, ValueError) as error:
            raise PipelineFileError(f"cannot read pipeline file {path}: {error}") from error
        try:
            return cls.from_dict(data)
        except PipelineFileError as error:
            raise PipelineFileError(f"pipeline file {path}: {error}") from error

    @staticmethod
    def _check_order(layers: list[int] | list[int | float]) -> None:
        for kind in (int, float):  # an index and a fraction can be compared only once the depth is known
            for earlier, later in itertools.pairwise(layer for layer in layers if isinstance(layer, kind)):
                if earlier >= later:
                    raise InvalidValueError(f"selectors must stand at strictly increasing layers, got {layers}")


def _describe(operator: object) -> dict[str, Any]:
    name = type(operator).__name__
    if not dataclasses.is_dataclass(operator):
        raise InvalidValueError(f"{name} is not a dataclass, so it cannot be written as JSON")
    described: dict[str, Any] = {"operator": name}
    for field in dataclasses.fields(operator):
        described[field.name] = _plain(f"{name}.{field.name}", getattr(operator, field.name))
    return described


def _plain(where: str, value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _describe(value)
    if isinstance(value, (tuple, list)):
        return [_plain(where, item) for item in value]
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise InvalidValueError(f"{where} cannot be written as JSON, got {value!r}")


def _build(description: object) -> Any:
    from tokenprune.plugins import operator_class

    if not isinstance(description, Mapping) or not isinstance(description.get("operator"), str):
        raise PipelineFileError(f'each operator must be an object with a name under "operator", got {description!r}')
    name = description["operator"]
    operator = operator_class(name)
    allowed = [field.name for field in dataclasses.fields(operator)]
    arguments: dict[str, Any] = {}
    for key, value in description.items():
        if key == "operator":
            continue
        if key not in allowed:
            raise PipelineFileError(f"{name} has no parameter {key!r}; it has {', '.join(allowed)}")
        arguments[key] = _revive(value)
    try:
        return operator(**arguments)
    except (TokenPruneError, TypeError, ValueError) as error:
        raise PipelineFileError(f"{name}: {error}") from error


def _revive(value: object) -> Any:
    if isinstance(value, Mapping):
        return _build(value)
    return tuple(_revive(item) for item in value) if isinstance(value, list) else value


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")
