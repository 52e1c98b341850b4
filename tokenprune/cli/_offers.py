# SPDX-License-Identifier: Apache-2.0
"""What the installed plugins offer to a command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenprune.loading import Plugin
from tokenprune.plugins import PluginRegistry, default_registry


def offers(hook: str, reasons: list[str], registry: PluginRegistry | None = None) -> Iterator[tuple[Plugin, Any]]:
    """Each plugin that answers ``hook`` with its answer, in the order of their names.

    Args:
        hook: one without arguments.
        reasons: gets a line for each plugin that cannot be used.
        registry: default: the installed plugins.
    """
    for plugin in (registry or default_registry()).plugins:
        info = plugin.info
        if info.status != "ok":
            reasons.append(f"{info.name} ({info.status}): {info.reason}")
        elif (offer := plugin.call(hook)) is not None:
            yield plugin, offer
