# SPDX-License-Identifier: Apache-2.0
"""``tokenprune plugins``: which operators and adapters were found, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenprune.loading import PluginInfo


def plugins() -> Listed:
    """List the installed plugins, the hooks each one has, and what is missing or broken."""
    from tokenprune.bench.offers import bench_plugins
    from tokenprune.plugins import list_plugins

    return Listed(list_plugins(), [plugin.info for plugin in bench_plugins()])


@dataclass(frozen=True)
class Listed:
    """Plugins for models and operators, and those that run and measure models."""

    found: Sequence[PluginInfo]
    bench: Sequence[PluginInfo]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"plugins": [asdict(info) for info in self.found], "bench": [asdict(info) for info in self.bench]}

    def render(self) -> None:
        """Print a line a plugin, and more where there is more to say."""
        _print(self.found)
        if self.bench:
            print("\nrun and measure models (tokenprune.bench):")
            _print(self.bench)


def _print(found: Sequence[PluginInfo]) -> None:
    for plugin in found:
        origin = f"{plugin.distribution} {plugin.version}".strip()
        print("  ".join([plugin.name, plugin.status, *([f"({origin})"] if origin else [])]))
        served = ", ".join(name for name, reason in plugin.models if not reason)
        others = [f"{name}: {reason}" for name, reason in plugin.models if reason]
        for line in (", ".join(plugin.hooks), plugin.reason, f"models: {served}" if served else "", *others):
            if line:
                print(f"    {line}")
