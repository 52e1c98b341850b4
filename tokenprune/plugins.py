# SPDX-License-Identifier: Apache-2.0
"""Finding operators and model adapters: the entry points of the group ``tokenprune``, each loaded on its own."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from torch import nn

from tokenprune.adapter import Accepted, Declined
from tokenprune.bound import BoundAdapter
from tokenprune.distribution import DISTRIBUTION, installed_version
from tokenprune.errors import AmbiguousAdapterError, NoAdapterError, PipelineFileError, TokenPruneWarning
from tokenprune.loading import Plugin, PluginInfo, describe, load_plugin
from tokenprune.messages import meant, shown

GROUP = "tokenprune"
ONLY_THESE = "TOKENPRUNE_PLUGINS"
BUILTIN = "builtin"


@dataclass(eq=False)
class PluginRegistry:
    """The plugins of one loading; the built-in operators are always the first of them.

    Args:
        plugins: every plugin found, the broken ones included.
    """

    plugins: tuple[Plugin, ...]
    _warned: bool = field(default=False, init=False)

    @classmethod
    def load(cls, points: Iterable[EntryPoint] | None = None, only: Iterable[str] | None = None) -> PluginRegistry:
        """Load the built-in operators and the plugins of ``points``, in the order of their names.

        Args:
            points: entry points; default: the installed ones of the group ``tokenprune``.
            only: names of the entry points to load; default: all.
        """
        found = sorted(entry_points(group=GROUP) if points is None else points, key=lambda p: (p.name, p.value))
        wanted = sorted({point.name for point in found} if only is None else set(only))
        builtin = PluginInfo(BUILTIN, DISTRIBUTION, installed_version())
        plugins = [load_plugin(builtin, lambda: import_module("tokenprune.builtin"), {})]
        for name in wanted:
            points_of_name = [point for point in found if point.name == name]
            if not points_of_name:
                missing = f"{ONLY_THESE} names it, but no such entry point is installed"
                plugins.append(Plugin(PluginInfo(name, status="failed", reason=missing)))
            for point in points_of_name:
                taken = {operator: plugin.info.name for plugin in plugins for operator in plugin.operators}
                plugins.append(load_plugin(_origin(point), point.load, taken))
        return cls(tuple(plugins))

    def list_plugins(self) -> list[PluginInfo]:
        """Every plugin found, with what is missing or broken."""
        return [plugin.info for plugin in self.plugins]

    def operator_class(self, name: str) -> type:
        """The operator or scorer of this class name.

        Raises:
            PipelineFileError: no plugin offers it; the message lists the known names and the broken plugins.
        """
        known = {operator: cls for plugin in self.plugins for operator, cls in plugin.operators.items()}
        if name in known:
            return known[name]
        message = f"unknown operator {shown(name)}; known are {', '.join(sorted(known))}{meant(name, known)}"
        raise PipelineFileError("; ".join([message, *self._unusable()]))

    def find_adapter(self, model: nn.Module) -> BoundAdapter:
        """The one adapter that accepts ``model``; every plugin is asked, an exception in one counts as a decline.

        Raises:
            NoAdapterError: none accepts it; the message says why each declined.
            AmbiguousAdapterError: several accept it.
        """
        accepting: list[BoundAdapter] = []
        declining: list[str] = []
        cause: Exception | None = None
        for plugin in self.plugins:
            if plugin.info.status != "ok" or "tokenprune_adapter" not in plugin.info.hooks:
                continue
            try:
                answer: object = plugin.call("tokenprune_adapter", model=model)
            except Exception as error:
                cause = cause or error
                answer = Declined(f"its tokenprune_adapter raised {describe(error)}")
            match answer:
                case Accepted(depth=depth):
                    accepting.append(BoundAdapter(plugin, model, depth))
                case Declined(reason=reason):
                    declining.append(f"{plugin.info.name}: {reason}")
                case _:
                    declining.append(f"{plugin.info.name}: its tokenprune_adapter returned {shown(answer)}")
        if not accepting:
            reasons = [*declining, *self._unusable()] or ["none is installed"]
            raise NoAdapterError(f"no adapter accepts {type(model).__name__}: {'; '.join(reasons)}") from cause
        if len(accepting) > 1:
            names = ", ".join(adapter.name for adapter in accepting)
            raise AmbiguousAdapterError(
                f"several adapters accept {type(model).__name__}: {names}; set {ONLY_THESE} to the one to use"
            )
        self._warn_of_broken()
        return accepting[0]

    def _unusable(self) -> list[str]:
        unusable = [plugin.info for plugin in self.plugins if plugin.info.status != "ok"]
        return [f"plugin {info.name} ({info.status}): {info.reason}" for info in unusable]

    def _warn_of_broken(self) -> None:
        broken = [plugin.info.name for plugin in self.plugins if plugin.info.status == "failed"]
        if broken and not self._warned:
            self._warned = True
            line = f"these plugins could not be loaded: {', '.join(broken)}; `tokenprune plugins` says why"
            warnings.warn(line, TokenPruneWarning, stacklevel=4)


_lock = threading.RLock()
_default: PluginRegistry | None = None


def default_registry() -> PluginRegistry:
    """The installed plugins, loaded on first use; ``TOKENPRUNE_PLUGINS`` limits them (``a,b``; empty: none)."""
    global _default
    with _lock:
        if _default is None:
            chosen = os.environ.get(ONLY_THESE)
            only = None if chosen is None else [name.strip() for name in chosen.split(",") if name.strip()]
            _default = PluginRegistry.load(only=only)
        return _default


def reset_plugins() -> None:
    """Forget what was loaded; the next use looks again (after installing a plugin, and in tests)."""
    global _default
    with _lock:
        _default = None


def list_plugins() -> Sequence[PluginInfo]:
    """Every installed plugin, the built-in operators first, with what is missing or broken."""
    return default_registry().list_plugins()


def operator_class(name: str) -> type:
    """The operator or scorer that pipeline files call ``name``; see :meth:`PluginRegistry.operator_class`."""
    return default_registry().operator_class(name)


def find_adapter(model: nn.Module) -> BoundAdapter:
    """The installed adapter that accepts ``model``; see :meth:`PluginRegistry.find_adapter`."""
    return default_registry().find_adapter(model)


def _origin(point: EntryPoint) -> PluginInfo:
    if point.dist is None:
        return PluginInfo(point.name)
    return PluginInfo(point.name, point.dist.name, point.dist.version)
