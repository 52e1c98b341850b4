# SPDX-License-Identifier: Apache-2.0
"""What makes a function a command: its groups of options spread out, its outcome shown, its errors on one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any, cast, get_type_hints

from tokenprune.cli._output import Outcome, Output


def command(body: Callable[..., Outcome]) -> Callable[..., None]:
    """The body as typer takes it.

    A parameter whose type is a dataclass is a group of options: each field becomes an option, and the body gets the
    dataclass. So an option that several commands share is declared, and checked, once. Every command gets the group
    :class:`Output`, which the body never sees.

    Args:
        body: returns what it found out; what it raises is shown by :meth:`Output.guarded`.
    """
    hints = get_type_hints(body, include_extras=True)
    own = signature(body).parameters
    options = [option for name, given in own.items() for option in _spread(name, hints[name], given.default)]
    options += _spread("output", Output, Parameter.empty)

    # typer calls with the values of all options, by name.
    def run(**values: Any) -> None:
        output = _build("output", Output, values)
        with output.guarded():
            output.show(body(**{name: _build(name, hints[name], values) for name in own}))

    run.__name__, run.__doc__ = body.__name__, body.__doc__
    run.__annotations__ = {option.name: option.annotation for option in options}
    cast(Any, run).__signature__ = Signature(options)
    return run


def _spread(name: str, kind: Any, default: Any) -> Iterator[Parameter]:
    if not is_dataclass(kind):
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        return
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        yield from _spread(
            field.name, hints[field.name], Parameter.empty if field.default is MISSING else field.default
        )


def _build(name: str, kind: Any, values: Mapping[str, Any]) -> Any:
    if not is_dataclass(kind):
        return values[name]
    hints = get_type_hints(kind, include_extras=True)
    made = cast(Callable[..., Any], kind)
    return made(**{field.name: _build(field.name, hints[field.name], values) for field in fields(kind)})
