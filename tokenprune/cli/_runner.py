# SPDX-License-Identifier: Apache-2.0
"""Which installed adapter loads the model that a command was given."""

from __future__ import annotations

from collections.abc import Iterable

from tokenprune.bench.offers import offers
from tokenprune.bench.runner import VideoRunner
from tokenprune.errors import NoAdapterError
from tokenprune.loading import Plugin

HOOK = "tokenprune_runner"


def find_runner(model: str | None, plugins: Iterable[Plugin] | None = None) -> VideoRunner:
    """The first adapter, in the order of their names, that takes this model; None takes any, for its shipped model.

    Raises:
        NoAdapterError: none does; the message says why.
        ModelLoadError: there is no such model.
    """
    reasons: list[str] = []
    for plugin, runner in offers(HOOK, reasons, plugins):
        reason = None if model is None else runner.declines(model)
        if reason is None:
            return runner
        reasons.append(f"{plugin.info.name} {reason}")
    wanted = "runs videos" if model is None else f"knows the model {model}"
    raise NoAdapterError(f"no adapter {wanted}: {'; '.join(reasons) or 'none is installed'}")
