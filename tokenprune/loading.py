# SPDX-License-Identifier: Apache-2.0
"""The plugins of one entry-point group: each is loaded on its own, or becomes the reason why it cannot be used."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from types import MappingProxyType, ModuleType
from typing import Any, Literal

import pluggy

from tokenprune.adapter import ModelAdapter
from tokenprune.errors import TokenPruneError
from tokenprune.hookspecs import PROJECT

ONLY_THESE = "TOKENPRUNE_PLUGINS"
GROUP, BENCH_GROUP = "tokenprune", "tokenprune.bench"
Status = Literal["ok", "not installed", "failed"]
Hook = Callable[[], Any]


@dataclass(frozen=True)
class PluginInfo:
    """One plugin as ``tokenprune plugins`` shows it.

    >>> PluginInfo("mine", "mine-dist", "1.0").status
    'ok'

    Args:
        name: name of its entry point.
        distribution: the distribution that brought it.
        version: version of that distribution.
        hooks: names of the hooks it implements, sorted.
        status: ``"ok"``, ``"not installed"`` (its requirements are missing) or ``"failed"``.
        reason: one line: what to install, or what is broken; empty when ok.
        models: where an adapter of it tells: each family of models it knows, and what stands in the way, or ``""``.
    """

    name: str
    distribution: str = ""
    version: str = ""
    hooks: tuple[str, ...] = ()
    status: Status = "ok"
    reason: str = ""
    models: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Plugin:
    """A plugin and what it offers, which is nothing where its status is not ok.

    Args:
        info: what is known about it.
        hooks: its hooks, by name.
        operators: the operators it offers, by class name.
        adapters: the model adapters it offers.
    """

    info: PluginInfo
    hooks: Mapping[str, Hook] = field(default_factory=dict[str, Hook])
    operators: Mapping[str, type] = field(default_factory=dict[str, type])
    adapters: tuple[ModelAdapter, ...] = ()

    def call(self, hook: str) -> Any:
        """Result of one hook; None where the plugin does not have it or cannot be used."""
        return self.hooks[hook]() if hook in self.hooks else None


Complete = Callable[[Plugin], Plugin]


class PluginGroup:
    """The plugins of one entry-point group behind one manager of pluggy, which holds those that can be used.

    Args:
        specs: the module that specifies the group's hooks; none of them takes an argument.
        former: hooks of an earlier release, and the one that replaces each.
    """

    def __init__(self, specs: ModuleType, former: Mapping[str, str] = MappingProxyType({})) -> None:
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(specs)
        self.known = {caller.name for caller in vars(self.manager.hook).values()}
        self.former = former
        self._places = itertools.count()  # entry points of two distributions may have the same name

    def load(
        self, points: Iterable[EntryPoint], only: Collection[str] | None, complete: Complete = lambda plugin: plugin
    ) -> list[Plugin]:
        """:meth:`add` the plugins of these entry points, or of those with the names ``only``, in the order of names."""
        wanted = sorted((p for p in points if only is None or p.name in only), key=lambda p: (p.name, p.value))
        return [self.add(_origin(point), point.load, complete) for point in wanted]

    def add(self, info: PluginInfo, load: Hook, complete: Complete = lambda plugin: plugin) -> Plugin:
        """Load and check one plugin; whatever is wrong with it is recorded in the result, never raised.

        Args:
            info: name and origin.
            load: returns the plugin, usually by importing it.
            complete: adds what the plugin offers, or raises.
        """
        place = f"{info.name}-{next(self._places)}"
        try:
            hooks = self._register(load(), place)
            info = replace(info, hooks=tuple(sorted(hooks)))
            missing = _missing(hooks)
            if not missing:
                return complete(Plugin(info, hooks))
            info = replace(info, status="not installed", reason=missing)
        except (Exception, SystemExit) as error:  # a plugin that leaves the interpreter on import is broken, too
            info = replace(info, status="failed", reason=describe(error))
        if self.manager.has_plugin(place):
            self.manager.unregister(name=place)
        return Plugin(info)

    def _register(self, plugin: object, place: str) -> dict[str, Hook]:
        """Its hooks by name, all of them specified by the group."""
        _check_names(plugin)
        if self.manager.is_registered(plugin):
            raise TokenPruneError("it is the same module or object as another plugin")
        self.manager.register(plugin, place)
        callers = self.manager.get_hookcallers(plugin) or ()
        found = {caller.name: i for caller in callers for i in caller.get_hookimpls() if i.plugin is plugin}
        unknown = [name for name, impl in found.items() if name not in self.known and not impl.optionalhook]
        old = sorted(set(unknown) & set(self.former))
        if any(self.former[name] not in found for name in old):
            raise TokenPruneError(
                f"it was written for tokenprune 0.1, which had the hooks {', '.join(old)}; "
                'docs/guides/hooks.md, "Moving from 0.1", tells how to move'
            )
        for name in unknown:
            if name not in old:
                raise TokenPruneError(f"unknown hook {name!r}; known are {', '.join(sorted(self.known))}")
        if not self.known & set(found):
            raise TokenPruneError("it has no function marked with @tokenprune.hookimpl")
        return {name: impl.function for name, impl in found.items() if name in self.known}


def chosen_names() -> list[str] | None:
    """What ``TOKENPRUNE_PLUGINS`` limits the plugins of both groups to (``a,b``; empty: none); None: to nothing."""
    chosen = os.environ.get(ONLY_THESE)
    return None if chosen is None else [name.strip() for name in chosen.split(",") if name.strip()]


def describe(error: BaseException) -> str:
    """An exception on one line, with its type unless it is ours or pluggy's, whose messages speak for themselves."""
    message = " ".join(str(error).split())
    if isinstance(error, (TokenPruneError, pluggy.PluginValidationError)) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _origin(point: EntryPoint) -> PluginInfo:
    return PluginInfo(point.name) if point.dist is None else PluginInfo(point.name, point.dist.name, point.dist.version)


def _check_names(plugin: object) -> None:
    """Refuse a class, and a function that is named like a hook and is none: it would be passed over in silence."""
    if inspect.isclass(plugin):
        raise TokenPruneError(f"the entry point must name a module or an object, got the class {plugin.__name__}")
    for name in dir(plugin):
        value = inspect.getattr_static(plugin, name)
        marked = hasattr(value, f"{PROJECT}_impl") or hasattr(value, f"{PROJECT}_spec")
        if name.startswith(f"{PROJECT}_") and inspect.isroutine(value) and not marked:
            raise TokenPruneError(f"{name} is named like a hook but not marked with @tokenprune.hookimpl")


def _missing(hooks: Mapping[str, Hook]) -> str:
    missing: object = hooks["tokenprune_requirements"]() if "tokenprune_requirements" in hooks else None
    if not isinstance(missing, str | None):
        raise TokenPruneError(f"tokenprune_requirements must return a string or None, got {type(missing).__name__}")
    return " ".join((missing or "").split())
