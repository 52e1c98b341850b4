# SPDX-License-Identifier: Apache-2.0
"""The plugins of one loading, and what they offer to the core: operators by their names, adapters by the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from torch import nn

from tokenprune import hookspecs
from tokenprune.adapter import Accepted, AdaptedModel, Declined
from tokenprune.distribution import DISTRIBUTION, installed_version
from tokenprune.errors import AmbiguousAdapterError, NoAdapterError, PipelineFileError, TokenPruneWarning
from tokenprune.loading import BENCH_GROUP, GROUP, ONLY_THESE, Plugin, PluginGroup, PluginInfo, describe
from tokenprune.messages import meant, shown
from tokenprune.offered import check_adapters, check_operators, known_models

BUILTIN = "builtin"
REGISTERED: dict[str, type] = {}
"""The operators that :func:`tokenprune.register` was given in this process, by class name."""


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
        taken: dict[str, str] = {}

        def complete(plugin: Plugin) -> Plugin:
            adapters = check_adapters(plugin.call("tokenprune_model_adapters"))
            operators = check_operators(plugin.call("tokenprune_operators"), taken)
            taken.update(dict.fromkeys(operators, plugin.info.name))
            info = replace(plugin.info, models=known_models(adapters))
            return replace(plugin, info=info, operators=operators, adapters=adapters)

        group = PluginGroup(hookspecs, hookspecs.FORMER)
        info = PluginInfo(BUILTIN, DISTRIBUTION, installed_version())
        # By name, because the operators stand above the registry: the offer is theirs, like any other plugin's.
        builtin = group.add(info, lambda: import_module("tokenprune.builtin"), complete)
        points = list(entry_points(group=GROUP) if points is None else points)
        only = None if only is None else set(only)
        plugins = group.load(points, only, complete)
        absent = set(only or ()) - {point.name for point in (*points, *entry_points(group=BENCH_GROUP))}
        missing = f"{ONLY_THESE} names it, but no such entry point is installed"
        plugins += [Plugin(PluginInfo(name, status="failed", reason=missing)) for name in absent]
        return cls((builtin, *sorted(plugins, key=lambda plugin: plugin.info.name)))

    @property
    def operators(self) -> dict[str, type]:
        """What pipeline files can name, by class name; what is registered in this process replaces a plugin's."""
        return {name: cls for plugin in self.plugins for name, cls in plugin.operators.items()} | REGISTERED

    def list_plugins(self) -> list[PluginInfo]:
        """Every plugin found, with what is missing or broken."""
        return [plugin.info for plugin in self.plugins]

    def operator_class(self, name: str) -> type:
        """The operator or scorer of this class name.

        Raises:
            PipelineFileError: nobody offers it; the message lists the known names and the broken plugins.
        """
        known = self.operators
        if name in known:
            return known[name]
        message = f"unknown operator {shown(name)}; known are {', '.join(sorted(known))}{meant(name, known)}"
        raise PipelineFileError("; ".join([message, *self._unusable()]))

    def find_adapter(self, model: nn.Module) -> AdaptedModel:
        """The one adapter that accepts ``model``; every adapter is asked, an exception in one counts as a decline.

        An adapter that yields counts only where no other accepts.

        Raises:
            NoAdapterError: none accepts it; the message says why each declined.
            AmbiguousAdapterError: several accept it.
        """
        accepting: list[tuple[Accepted, AdaptedModel, str]] = []
        declining: list[str] = []
        cause: Exception | None = None
        for offered_by, adapter in [(p.info.name, adapter) for p in self.plugins for adapter in p.adapters]:
            name = adapter.name if adapter.name == offered_by else f"{offered_by}/{adapter.name}"
            try:
                answer: object = adapter.accepts(model)
            except Exception as error:
                cause = cause or error
                answer = Declined(f"its adapter raised {describe(error)}")
            match answer:
                case Accepted(depth=depth):
                    accepting.append((answer, AdaptedModel(adapter, model, depth, answer.readable), name))
                case Declined(reason=reason):
                    declining.append(f"{name}: {reason}")
                case _:
                    declining.append(f"{name}: its adapter returned {shown(answer)}")
        if not accepting:
            reasons = [*declining, *self._unusable()] or ["none is installed"]
            raise NoAdapterError(f"no adapter accepts {type(model).__name__}: {'; '.join(reasons)}") from cause
        chosen = [found for found in accepting if not found[0].yields] or accepting
        if len(chosen) > 1:
            raise AmbiguousAdapterError(
                f"several adapters accept {type(model).__name__}: {', '.join(name for *_, name in chosen)}; "
                f"set {ONLY_THESE} to the plugin to use"
            )
        self._warn_of_broken()
        return chosen[0][1]

    def _unusable(self) -> list[str]:
        unusable = [plugin.info for plugin in self.plugins if plugin.info.status != "ok"]
        return [f"plugin {info.name} ({info.status}): {info.reason}" for info in unusable]

    def _warn_of_broken(self) -> None:
        broken = [plugin.info.name for plugin in self.plugins if plugin.info.status == "failed"]
        if broken and not self._warned:
            self._warned = True
            line = f"these plugins could not be loaded: {', '.join(broken)}; `tokenprune plugins` says why"
            warnings.warn(line, TokenPruneWarning, stacklevel=4)
