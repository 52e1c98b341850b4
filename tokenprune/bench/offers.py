# SPDX-License-Identifier: Apache-2.0
"""What the installed plugins of the group ``tokenprune.bench`` offer to a command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tokenprune.bench import hookspecs
from tokenprune.loading import BENCH_GROUP, Plugin, PluginGroup, chosen_names


def bench_plugins(points: Iterable[EntryPoint] | None = None) -> list[Plugin]:
    """The plugins of the group, loaded anew, in the order of their names; ``TOKENPRUNE_PLUGINS`` limits them too.

    Args:
        points: entry points; default: the installed ones.
    """
    return PluginGroup(hookspecs).load(entry_points(group=BENCH_GROUP) if points is None else points, chosen_names())


def offers(hook: str, reasons: list[str], plugins: Iterable[Plugin] | None = None) -> Iterator[tuple[Plugin, Any]]:
    """Each plugin that answers ``hook`` with its answer, in the order of their names.

    Args:
        hook: a name of :mod:`tokenprune.bench.hookspecs`.
        reasons: gets a line for each plugin that cannot be used.
        plugins: default: :func:`bench_plugins`.
    """
    for plugin in bench_plugins() if plugins is None else plugins:
        info = plugin.info
        if info.status != "ok":
            reasons.append(f"{info.name} ({info.status}): {info.reason}")
        elif (offer := plugin.call(hook)) is not None:
            yield plugin, offer
