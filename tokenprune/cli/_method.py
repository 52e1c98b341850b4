# SPDX-License-Identifier: Apache-2.0
"""A method by its name, and its parameters as they are written on a command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._output import UsageError
from tokenprune.messages import not_one_of, shown

if TYPE_CHECKING:
    from tokenprune.operator import Operator

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
    """The parameters that ``--set`` names, each with one value: JSON where it is some, else the text itself.

    Raises:
        UsageError: no name or no value, or a name twice.
    """
    return {name: _value(text) for name, text in _pairs(given).items()}


def axes_of(given: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """The same, each with the values to try, which have commas between them."""
    return {name: _values(text) for name, text in _pairs(given).items()}


def operator_of(name: str, settings: Mapping[str, Any]) -> Operator:
    """The method with these parameters.

    Raises:
        InvalidValueError: an unknown method or parameter, or a value that is not allowed.
    """
    from tokenprune.catalogue import method
    from tokenprune.errors import InvalidValueError, PipelineFileError
    from tokenprune.operator_json import build

    known = parameters_of(name)
    for unknown in settings.keys() - known:
        raise InvalidValueError(not_one_of(f"a parameter of {name}", known, unknown))
    try:
        return build({"operator": method(name).name, **settings})
    except PipelineFileError as error:
        raise InvalidValueError(str(error)) from error


def parameters_of(name: str) -> list[str]:
    """What the method can be given.

    Raises:
        InvalidValueError: an unknown method.
    """
    from tokenprune.catalogue import method

    return [parameter.name for parameter in method(name).parameters]


def label_of(name: str, settings: Mapping[str, Any]) -> str:
    """The method as Python would write it."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


def _pairs(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or name in found:
            raise UsageError(f"--set must be PARAMETER=VALUE, each parameter once, got {shown(text)}")
        found[name] = value
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _values(text: str) -> tuple[Any, ...]:
    try:
        return tuple(json.loads(f"[{text}]"))
    except ValueError:
        return tuple(_value(part) for part in text.split(","))
