# SPDX-License-Identifier: Apache-2.0
"""A method by its name, and its parameters as they are written on a command line."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tokenprune.cli._output import UsageError
from tokenprune.messages import not_one_of, shown

if TYPE_CHECKING:
    from tokenprune.operator import Operator

Value = TypeVar("Value")

SET_HELP = "A parameter of the method, such as window=64; may be repeated."

MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="One method by its name (`tokenprune methods` lists them), with --keep-ratio, --layer and --set.",
        metavar="NAME",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help=SET_HELP, metavar="PARAMETER=VALUE", show_default=False)
]


def settings_of(given: Sequence[str]) -> dict[str, Any]:
    """The parameters that ``--set`` names, each with one value: as JSON or Python writes it, else the text itself.

    Raises:
        UsageError: no name or no value, or a name twice.
    """
    return {name: _value(text) for name, text in _pairs(given).items()}


def axes_of(given: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """The same, each with the values to try, which have commas between them."""
    return {name: _values(text) for name, text in _pairs(given).items()}


def with_options(options: Mapping[str, Value | None], settings: Mapping[str, Value]) -> dict[str, Value]:
    """What the options of their own say, and ``--set``.

    Args:
        options: parameter -> what its option said; None: nothing.
        settings: what ``--set`` said.

    Raises:
        UsageError: both name a parameter.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for twice in given.keys() & settings.keys():
        raise UsageError(f"--{twice.replace('_', '-')} and --set {twice}=... say the same thing; leave one of them out")
    return {**given, **settings}


def operator_of(name: str, settings: Mapping[str, Any]) -> Operator:
    """The method with these parameters.

    Raises:
        InvalidValueError: an unknown method or parameter, or a value that is not allowed.
    """
    from tokenprune.catalogue import method
    from tokenprune.errors import InvalidValueError, PipelineFileError
    from tokenprune.operator_json import build

    row, known = method(name), parameters_of(name)
    for unknown in settings.keys() - known:
        raise InvalidValueError(not_one_of(f"a parameter of {name}", known, unknown))
    try:
        return build({"operator": row.name, **row.settings, **settings})
    except PipelineFileError as error:
        raise InvalidValueError(str(error)) from error


def parameters_of(name: str) -> list[str]:
    """What the method can be given, but for what its form says already.

    Raises:
        InvalidValueError: an unknown method.
    """
    from tokenprune.catalogue import method

    row = method(name)
    return [parameter.name for parameter in row.parameters if parameter.name not in row.settings]


def label_of(name: str, settings: Mapping[str, Any]) -> str:
    """The method as Python would write it.

    Raises:
        InvalidValueError: an unknown method.
    """
    from tokenprune.catalogue import method

    row = method(name)
    return f"{row.name}({', '.join(f'{key}={value!r}' for key, value in {**row.settings, **settings}.items())})"


def _pairs(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or name in found:
            raise UsageError(f"--set must be PARAMETER=VALUE, each parameter once, got {shown(text)}")
        found[name] = value
    return found


def _value(text: str) -> Any:
    values = _written(text)
    return values[0] if values is not None and len(values) == 1 else text


def _values(text: str) -> tuple[Any, ...]:
    values = _written(text)
    return tuple(_value(part) for part in text.split(",")) if values is None else tuple(values)


def _written(text: str) -> list[Any] | None:
    """The values, as JSON or Python writes them (``null``, ``None``); None where they are something else."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(f"[{text}]")
        except (ValueError, SyntaxError):
            continue
    return None
