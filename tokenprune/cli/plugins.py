# SPDX-License-Identifier: Apache-2.0
"""``tokenprune plugins``: which operators and adapters were found, and what is wrong with the others."""

from __future__ import annotations

from dataclasses import asdict

from tokenprune.cli._common import DebugFlag, JsonFlag, guarded, print_json


def plugins(as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """List the installed plugins, the hooks each one has, and what is missing or broken."""
    with guarded(debug, as_json):
        from tokenprune.plugins import list_plugins

        found = list_plugins()
        if as_json:
            print_json({"plugins": [asdict(plugin) for plugin in found]})
            return
        for plugin in found:
            origin = f"{plugin.distribution} {plugin.version}".strip()
            print("  ".join([plugin.name, plugin.status, *([f"({origin})"] if origin else [])]))
            for line in (", ".join(plugin.hooks), plugin.reason):
                if line:
                    print(f"    {line}")
