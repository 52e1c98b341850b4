# SPDX-License-Identifier: Apache-2.0
"""The pluggy hooks through which operators and model adapters are found (entry-point group ``tokenprune``).

A plugin is a module, or an object, named by an entry point of the group ``tokenprune``; its functions marked
``@tokenprune.hookimpl`` and named as below are its hooks, each of them optional. Every hook is asked once, when plugins
are loaded; every plugin is asked on its own, so one that fails never hides another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pluggy

from tokenprune.adapter import ModelAdapter

PROJECT = "tokenprune"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

_ADAPTERS, _BENCH = "tokenprune_model_adapters", "the entry-point group tokenprune.bench"
FORMER = {
    "tokenprune_adapter": _ADAPTERS,
    "tokenprune_decoder": _ADAPTERS,
    "tokenprune_visual_boundaries": _ADAPTERS,
    "tokenprune_attention_view": _ADAPTERS,
    "tokenprune_cache_layers": _ADAPTERS,
    "tokenprune_runner": _BENCH,
    "tokenprune_benchmarks": _BENCH,
    "tokenprune_speed": _BENCH,
}
"""The hooks of 0.1 that are gone, and where their answers are given now."""


@hookspec
def tokenprune_requirements() -> str | None:
    """What must be installed before this plugin can work, as one line with the command; None if nothing is missing.

    Asked first. A plugin that names something is listed as not installed rather than broken, its line becomes the
    reason why its adapters decline, and no other hook of it is called. It must be quick and import nothing heavy:
    :func:`importlib.util.find_spec` tells whether a package is there.
    """
    raise NotImplementedError


@hookspec
def tokenprune_operators() -> Mapping[str, type]:
    """Operators and scorers that pipeline files may name: class name -> frozen dataclass of that name.

    A name that an earlier plugin holds makes this plugin a failed one.
    """
    raise NotImplementedError


@hookspec
def tokenprune_model_adapters() -> Sequence[ModelAdapter]:
    """Adapter objects, each of which answers for the models of one family (:class:`tokenprune.ModelAdapter`).

    It must import nothing heavy: what an adapter needs of a model's library waits inside its methods.
    """
    raise NotImplementedError
