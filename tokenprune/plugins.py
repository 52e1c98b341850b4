# SPDX-License-Identifier: Apache-2.0
"""Finding operators and model adapters: the entry points of the group ``tokenprune``, and what a notebook registers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from tokenprune.adapter import AdaptedModel
from tokenprune.errors import InvalidValueError
from tokenprune.loading import PluginInfo, chosen_names
from tokenprune.offered import check_operator
from tokenprune.registry import REGISTERED, PluginRegistry

C = TypeVar("C", bound=type)
_lock = threading.RLock()
_default: PluginRegistry | None = None


def default_registry() -> PluginRegistry:
    """The installed plugins, loaded on first use; ``TOKENPRUNE_PLUGINS`` limits them (``a,b``; empty: none)."""
    global _default
    with _lock:
        if _default is None:
            _default = PluginRegistry.load(only=chosen_names())
        return _default


def reset_plugins() -> None:
    """Forget what was loaded; the next use looks again (after installing a plugin, and in tests).

    What :func:`register` was given stays: looking again would not find it.
    """
    global _default
    with _lock:
        _default = None


def list_plugins() -> Sequence[PluginInfo]:
    """Every installed plugin, the built-in operators first, with what is missing or broken.

    >>> "builtin" in {plugin.name for plugin in list_plugins()}
    True
    """
    return default_registry().list_plugins()


def register(operator: C, *, replace: bool = False) -> C:
    """Let pipeline files of this process name an operator or scorer that no plugin offers, as in a notebook.

    >>> from dataclasses import dataclass
    >>> @tp.register
    ... @dataclass(frozen=True)
    ... class EveryThird:
    ...     def plan(self, tokens):
    ...         return tp.TokenPlan.keeping(torch.arange(0, len(tokens), 3), len(tokens))
    >>> tp.Pipeline.from_dict(tp.Pipeline([EveryThird()]).to_dict()).operators
    (EveryThird(),)

    Args:
        operator: a frozen dataclass; pipeline files call it by its class name.
        replace: whether it may take the name of another operator, as of a cell's earlier run.

    Returns:
        The class, so that this is a decorator, too.

    Raises:
        InvalidValueError: no frozen dataclass, or its name is taken.
    """
    name = check_operator(getattr(operator, "__name__", ""), operator).__name__
    with _lock:
        known = default_registry().operators
        if name in known and not replace:
            raise InvalidValueError(
                f"the name {name} is taken, by {known[name].__module__}; choose another, or say replace=True"
            )
        REGISTERED[name] = operator
    return operator


def operator_class(name: str) -> type:
    """The operator or scorer that pipeline files call ``name``; see :meth:`PluginRegistry.operator_class`."""
    return default_registry().operator_class(name)


def find_adapter(model: nn.Module) -> AdaptedModel:
    """The installed adapter that accepts ``model``; see :meth:`PluginRegistry.find_adapter`."""
    return default_registry().find_adapter(model)
