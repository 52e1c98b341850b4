# SPDX-License-Identifier: Apache-2.0
"""``tokenprune plugins``: which operators and adapters were found, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from tokenprune.cli._common import DebugFlag, JsonFlag, guarded, print_json

if TYPE_CHECKING:
    from tokenprune.loading import PluginInfo


def plugins(as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """List the installed plugins, the hooks each one has, and what is missing or broken."""
    with guarded(debug, as_json):
        from tokenprune.bench.offers import bench_plugins
        from tokenprune.plugins import list_plugins

        found, bench = list_plugins(), [plugin.info for plugin in bench_plugins()]
        if as_json:
            print_json({"plugins": [asdict(info) for info in found], "bench": [asdict(info) for info in bench]})
            return
        _print(found)
        if bench:
            print("\nrun and measure models (tokenprune.bench):")
            _print(bench)


def _print(found: Sequence[PluginInfo]) -> None:
    for plugin in found:
        origin = f"{plugin.distribution} {plugin.version}".strip()
        print("  ".join([plugin.name, plugin.status, *([f"({origin})"] if origin else [])]))
        served = ", ".join(name for name, reason in plugin.models if not reason)
        others = [f"{name}: {reason}" for name, reason in plugin.models if reason]
        for line in (", ".join(plugin.hooks), plugin.reason, f"models: {served}" if served else "", *others):
            if line:
                print(f"    {line}")
