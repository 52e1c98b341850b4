# SPDX-License-Identifier: Apache-2.0
"""Which installed adapter loads the model that a command was given."""

from __future__ import annotations

from tokenprune.errors import NoAdapterError
from tokenprune.plugins import PluginRegistry, default_registry
from tokenprune.runner import VideoRunner

HOOK = "tokenprune_runner"


def find_runner(model: str | None, registry: PluginRegistry | None = None) -> VideoRunner:
    """The first adapter, in the order of their names, that takes this model; None takes any, for its shipped model.

    Raises:
        NoAdapterError: none does; the message says why.
        ModelLoadError: there is no such model.
    """
    reasons: list[str] = []
    for plugin in (registry or default_registry()).plugins:
        info = plugin.info
        if info.status != "ok":
            reasons.append(f"{info.name} ({info.status}): {info.reason}")
            continue
        runner: VideoRunner | None = plugin.call(HOOK)
        if runner is None:
            continue
        reason = None if model is None else runner.declines(model)
        if reason is None:
            return runner
        reasons.append(f"{info.name} {reason}")
    wanted = "runs videos" if model is None else f"knows the model {model}"
    raise NoAdapterError(f"no adapter {wanted}: {'; '.join(reasons) or 'none is installed'}")
