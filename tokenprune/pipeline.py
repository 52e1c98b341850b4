# SPDX-License-Identifier: Apache-2.0
"""An ordered tuple of operators, checked when built."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenprune.depth import check_layer, resolve_layer
from tokenprune.errors import InvalidValueError, PipelineFileError, TokenPruneError
from tokenprune.files import write_text
from tokenprune.messages import shown
from tokenprune.operator_json import build, describe
from tokenprune.protocols import Operator, TokenMerger, TokenSelector
from tokenprune.strict_json import read_json

FORMAT = "tokenprune.pipeline"
VERSION = 1
MOST_OPERATORS = 64
MOST_BYTES = 2**20
"""Of a file; the largest pipeline takes a few thousand."""


@dataclass(frozen=True, init=False)
class Pipeline:
    """Operators in the order they act: mergers before the LLM, then selectors at strictly increasing layers.

    Args:
        operators: up to 64 operators; none at all is the plain model.

    Raises:
        InvalidValueError: they are too many, something is no operator, a layer is none, a merger follows a selector, a
            merger that needs the full grid is not the first, or two selectors do not stand at strictly increasing
            layers.
    """

    operators: tuple[Operator, ...]

    def __init__(self, operators: Iterable[Operator] = ()) -> None:
        if isinstance(operators, type) or not isinstance(operators, Iterable):
            raise InvalidValueError(f"operators must be a sequence of operators, got {shown(operators)}")
        given = tuple(itertools.islice(operators, MOST_OPERATORS + 1))  # an iterator might never end
        if len(given) > MOST_OPERATORS:
            raise InvalidValueError(f"a pipeline must have at most {MOST_OPERATORS} operators, but more are given")
        object.__setattr__(self, "operators", given)
        selectors_began = False
        for place, operator in enumerate(self.operators):
            name = type(operator).__name__
            if isinstance(operator, type):  # a class has the methods, too
                raise InvalidValueError(f"operators[{place}] must be an operator, got the class {operator.__name__}")
            if isinstance(operator, TokenSelector):
                check_layer(f"{name}.layer", operator.layer)
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
        return {"format": FORMAT, "version": VERSION, "operators": [describe(o) for o in self.operators]}

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
            raise PipelineFileError(f"pipeline version must be {VERSION}, got {shown(version)}")
        operators = data.get("operators")
        unknown = [key for key in data if key not in ("format", "version", "operators")]
        if not isinstance(operators, list) or unknown:
            raise PipelineFileError(f'a pipeline needs a list "operators" and nothing else, got extra {shown(unknown)}')
        if len(operators) > MOST_OPERATORS:
            raise PipelineFileError(f"a pipeline must have at most {MOST_OPERATORS} operators, got {len(operators)}")
        try:
            return cls([build(description) for description in operators])
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

    @staticmethod
    def _check_order(layers: list[int] | list[int | float]) -> None:
        for kind in (int, float):  # an index and a fraction can be compared only once the depth is known
            for earlier, later in itertools.pairwise(layer for layer in layers if isinstance(layer, kind)):
                if earlier >= later:
                    raise InvalidValueError(f"selectors must stand at strictly increasing layers, got {shown(layers)}")


def _check_path(path: object) -> None:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidValueError(f"path must be a path, got {shown(path)}")
