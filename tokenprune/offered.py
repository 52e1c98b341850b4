# SPDX-License-Identifier: Apache-2.0
"""What a plugin may offer to the core, checked before anything uses it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence

from tokenprune.adapter import ModelAdapter
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown

ANSWERS = ("accepts", "boundaries", "attention", "port")


def check_operator(name: str, operator: object) -> type:
    """The operator; raises :class:`InvalidValueError` unless it is a frozen dataclass of this name."""
    if not inspect.isclass(operator) or operator.__name__ != name:
        raise InvalidValueError(f"an operator must be a class under its own name, got {shown(name)}: {shown(operator)}")
    parameters = getattr(operator, "__dataclass_params__", None)
    if not dataclasses.is_dataclass(operator) or not getattr(parameters, "frozen", False):
        raise InvalidValueError(f"operator {name} must be a frozen dataclass")
    return operator


def check_operators(offered: object, taken: Mapping[str, str]) -> dict[str, type]:
    """What ``tokenprune_operators`` gave; raises :class:`InvalidValueError` for a name that a plugin has taken."""
    if not isinstance(offered, Mapping | None):
        raise InvalidValueError(f"tokenprune_operators must return a mapping, got {type(offered).__name__}")
    operators = {name: check_operator(name, operator) for name, operator in (offered or {}).items()}
    for name in operators:
        if name in taken:
            raise InvalidValueError(f"operator {name} is already offered by plugin {taken[name]}")
    return operators


def check_adapters(offered: object) -> tuple[ModelAdapter, ...]:
    """What ``tokenprune_model_adapters`` gave; raises :class:`InvalidValueError` for what cannot answer for a model."""
    if not isinstance(offered, Sequence | None) or isinstance(offered, str):
        raise InvalidValueError(f"tokenprune_model_adapters must return a sequence, got {type(offered).__name__}")
    for adapter in offered or ():
        if inspect.isclass(adapter):
            raise InvalidValueError(f"a model adapter must be an object, got the class {adapter.__name__}")
        missing = [answer for answer in ANSWERS if not callable(getattr(adapter, answer, None))]
        missing += [] if isinstance(getattr(adapter, "name", None), str) else ["name"]
        if missing:
            raise InvalidValueError(f"the model adapter {type(adapter).__name__} has no {', '.join(missing)}")
    return tuple(offered or ())


def known_models(adapters: Sequence[ModelAdapter]) -> tuple[tuple[str, str], ...]:
    """What adapters of several families tell of each: its name, and what stands in the way or ``""``."""
    return tuple((str(name), str(reason)) for each in adapters for name, reason in getattr(each, "models", ()))
