# SPDX-License-Identifier: Apache-2.0
"""Turning one entry point into a plugin, or into the reason why it is none; nothing leaks from one to the next."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pluggy

from tokenprune import hookspecs
from tokenprune.errors import TokenPruneError
from tokenprune.messages import shown

Status = Literal["ok", "not installed", "failed"]


@dataclass(frozen=True)
class PluginInfo:
    """One plugin as ``tokenprune plugins`` shows it.

    Args:
        name: name of its entry point.
        distribution: the distribution that brought it.
        version: version of that distribution.
        hooks: names of the hooks it implements, sorted.
        status: ``"ok"``, ``"not installed"`` (its requirements are missing) or ``"failed"``.
        reason: one line: what to install, or what is broken; empty when ok.
    """

    name: str
    distribution: str = ""
    version: str = ""
    hooks: tuple[str, ...] = ()
    status: Status = "ok"
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Plugin:
    """A loaded plugin behind a manager of its own; only a plugin whose status is ok may be called.

    Args:
        info: what is known about it.
        operators: the operators it offers.
        manager: pluggy's manager that knows this plugin alone.
        error: the exception that made it fail.
    """

    info: PluginInfo
    operators: Mapping[str, type] = field(default_factory=dict[str, type])
    manager: pluggy.PluginManager | None = None
    error: BaseException | None = None

    def call(self, hook: str, **arguments: object) -> Any:
        """Result of one hook, None where the plugin does not have it."""
        if self.manager is None or self.info.status != "ok" or hook not in self.info.hooks:
            return None
        return getattr(self.manager.hook, hook)(**arguments)


def load_plugin(info: PluginInfo, load: Callable[[], object], taken: Mapping[str, str]) -> Plugin:
    """Load and check one plugin; whatever is wrong with it is recorded in the result, never raised.

    Args:
        info: name and origin.
        load: returns the plugin, usually by importing it.
        taken: operator names that earlier plugins hold, with the name of the holder.
    """
    try:
        plugin = load()
        manager = _register(plugin, info.name)
        info = replace(info, hooks=tuple(sorted(caller.name for caller in manager.get_hookcallers(plugin) or ())))
        _check_names(plugin, info)
        missing = _missing_requirements(manager)
        if missing:
            return Plugin(replace(info, status="not installed", reason=missing), manager=manager)
        return Plugin(info, _operators(manager, taken), manager)
    except (Exception, SystemExit) as error:  # a plugin that leaves the interpreter on import is broken, too
        return Plugin(replace(info, status="failed", reason=describe(error)), error=error)


def describe(error: BaseException) -> str:
    """An exception on one line, with its type unless it is ours or pluggy's, whose messages speak for themselves."""
    message = " ".join(str(error).split())
    if isinstance(error, (TokenPruneError, pluggy.PluginValidationError)) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _register(plugin: object, name: str) -> pluggy.PluginManager:
    if inspect.isclass(plugin):
        raise TokenPruneError(f"the entry point must name a module or an object, got the class {plugin.__name__}")
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name)
    manager.check_pending()
    return manager


def _check_names(plugin: object, info: PluginInfo) -> None:
    """Refuse a function that is named like a hook and is none, for it would be passed over in silence."""
    for name in dir(plugin):
        value = inspect.getattr_static(plugin, name)
        marked = hasattr(value, f"{hookspecs.PROJECT}_impl") or hasattr(value, f"{hookspecs.PROJECT}_spec")
        if name.startswith(f"{hookspecs.PROJECT}_") and inspect.isroutine(value) and not marked:
            raise TokenPruneError(f"{name} is named like a hook but not marked with @tokenprune.hookimpl")
    if not info.hooks:
        raise TokenPruneError("it has no function marked with @tokenprune.hookimpl")


def _missing_requirements(manager: pluggy.PluginManager) -> str:
    missing: object = manager.hook.tokenprune_requirements()
    if not isinstance(missing, str | None):
        raise TokenPruneError(f"tokenprune_requirements must return a string or None, got {type(missing).__name__}")
    return " ".join((missing or "").split())


def _operators(manager: pluggy.PluginManager, taken: Mapping[str, str]) -> dict[str, type]:
    offered: object = manager.hook.tokenprune_operators()
    if offered is None:  # a plugin without this hook
        return {}
    if not isinstance(offered, Mapping):
        raise TokenPruneError(f"tokenprune_operators must return a mapping, got {type(offered).__name__}")
    operators: dict[str, type] = {}
    for name, operator in offered.items():
        operators[name] = _checked(name, operator)
        if name in taken:
            raise TokenPruneError(f"operator {name} is already offered by plugin {taken[name]}")
    return operators


def _checked(name: object, operator: object) -> type:
    if not inspect.isclass(operator) or operator.__name__ != name:
        raise TokenPruneError(
            f"tokenprune_operators must map class names to classes, got {shown(name)}: {shown(operator)}"
        )
    parameters = getattr(operator, "__dataclass_params__", None)
    if not dataclasses.is_dataclass(operator) or not getattr(parameters, "frozen", False):
        raise TokenPruneError(f"operator {name} must be a frozen dataclass")
    return operator
