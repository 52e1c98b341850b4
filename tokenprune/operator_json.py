# SPDX-License-Identifier: Apache-2.0
"""Operators as JSON values: a name and parameters, among them further operators, to a limited depth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tokenprune.errors import InvalidValueError, PipelineFileError
from tokenprune.messages import meant, shown
from tokenprune.plugins import operator_class

DEEPEST = 8
"""Levels of lists and operators within an operator."""
_WIDEST = 1024  # bits of an integer: what is much longer, Python neither writes nor reads


def describe(operator: object) -> dict[str, Any]:
    """JSON-ready: name and parameters.

    Raises:
        InvalidValueError: it is no dataclass, or a parameter is nothing that JSON holds.
    """
    return _describe(operator, DEEPEST)


def build(description: object) -> Any:
    """The operator that :func:`describe` described.

    Raises:
        PipelineFileError: an unknown operator, or parameters that are unknown or not allowed.
    """
    return _build(description, DEEPEST)


def _describe(operator: object, levels: int) -> dict[str, Any]:
    name = type(operator).__name__
    if not dataclasses.is_dataclass(operator):
        raise InvalidValueError(f"{name} is not a dataclass, so it cannot be written as JSON")
    described: dict[str, Any] = {"operator": name}
    for field in dataclasses.fields(operator):
        described[field.name] = _plain(f"{name}.{field.name}", getattr(operator, field.name), levels)
    return described


def _plain(where: str, value: object, levels: int) -> Any:
    nests = (dataclasses.is_dataclass(value) and not isinstance(value, type)) or isinstance(value, (tuple, list))
    if nests and not levels:
        raise InvalidValueError(f"{where} nests more than {DEEPEST} levels deep")
    if isinstance(value, (tuple, list)):
        return [_plain(where, item, levels - 1) for item in value]
    if nests:
        return _describe(value, levels - 1)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if value is None or isinstance(value, (bool, str)) or (isinstance(value, int) and value.bit_length() <= _WIDEST):
        return value
    raise InvalidValueError(f"{where} cannot be written as JSON, got {shown(value)}")


def _build(description: object, levels: int) -> Any:
    if not isinstance(description, Mapping) or not isinstance(description.get("operator"), str):
        raise PipelineFileError(
            f'each operator must be an object with a name under "operator", got {shown(description)}'
        )
    name = description["operator"]
    operator = operator_class(name)
    allowed = [field.name for field in dataclasses.fields(operator)]
    arguments: dict[str, Any] = {}
    for key, value in description.items():
        if key == "operator":
            continue
        if key not in allowed:
            raise PipelineFileError(
                f"{name} has no parameter {shown(key)}; it has {', '.join(allowed)}{meant(key, allowed)}"
            )
        arguments[key] = _revive(value, levels)
    try:
        return operator(**arguments)
    except Exception as error:  # what an operator of a stranger's makes of wrong types may be anything
        raise PipelineFileError(f"{name}: {error}") from error


def _revive(value: object, levels: int) -> Any:
    if isinstance(value, (Mapping, list)) and not levels:
        raise PipelineFileError(f"an operator's parameters nest more than {DEEPEST} levels deep")
    if isinstance(value, Mapping):
        return _build(value, levels - 1)
    return tuple(_revive(item, levels - 1) for item in value) if isinstance(value, list) else value
