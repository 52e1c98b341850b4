# SPDX-License-Identifier: Apache-2.0
"""The pluggy hooks through which operators and model adapters are found (entry-point group ``tokenprune``).

A plugin is a module, or an object, named by an entry point of the group ``tokenprune``; its functions marked
``@tokenprune.hookimpl`` and named as below are its hooks, each of them optional. Every plugin is asked on its own, so
one that fails never hides another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pluggy
from torch import nn

from tokenprune.adapter import Accepted, AttentionReader, Declined, DecoderPort, Prompt, VisualSpan
from tokenprune.bench.benchmark import Benchmark
from tokenprune.bench.runner import VideoRunner
from tokenprune.bench.speed.request import SpeedBench
from tokenprune.operator import PrunableCache

PROJECT = "tokenprune"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def tokenprune_requirements() -> str | None:
    """What must be installed before this plugin can work, as one line with the command; None if nothing is missing.

    Asked first, when plugins are loaded. A plugin that names something is listed as not installed rather than broken,
    its line becomes the reason why its adapter declines, and no other hook of it is called. Optional. It must be
    quick and import nothing heavy: :func:`importlib.util.find_spec` tells whether a package is there.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def tokenprune_operators() -> Mapping[str, type]:
    """Operators and scorers that pipeline files may name: class name -> frozen dataclass of that name.

    Asked once, when plugins are loaded. A name that an earlier plugin holds makes this plugin a failed one.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def tokenprune_adapter(model: nn.Module) -> Accepted | Declined:
    """Is this model yours? :class:`Accepted` with its depth, or :class:`Declined` with one line that says why not.

    Asked of every plugin for every model, so it must be quick; an exception counts as a decline.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def tokenprune_decoder(model: nn.Module) -> DecoderPort:
    """The port that carries a prefill of this model (``tokenprune.hf`` has one for Hugging Face decoders)."""
    raise NotImplementedError


@hookspec(firstresult=True)
def tokenprune_visual_boundaries(model: nn.Module, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
    """Per prompt row its videos and images, in order: grid and the T*H*W prompt columns in raster order.

    Raise :class:`tokenprune.UnsupportedModeError` where the layout cannot be read with certainty.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def tokenprune_attention_view(model: nn.Module, layer: int) -> AttentionReader:
    """A reader of the queries and keys that decoder layer ``layer`` computes."""
    raise NotImplementedError


@hookspec(firstresult=True)
def tokenprune_cache_layers(model: nn.Module, cache: object) -> PrunableCache:
    """Make the layers of ``cache`` prunable, in place, and return the handle that cuts them.

    Raise :class:`tokenprune.UnsupportedCacheError` where that cannot be done rightly, leaving the cache as it was.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def tokenprune_runner() -> VideoRunner:
    """How the command line loads this adapter's models and asks them about video files; optional.

    Called only by commands that run a model; importing what is heavy can wait until the runner is used.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def tokenprune_benchmarks() -> Mapping[str, Benchmark]:
    """Benchmarks that ``tokenprune eval`` can run, by name; optional.

    Called only by that command; importing what is heavy can wait until a benchmark is run.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def tokenprune_speed() -> SpeedBench:
    """How ``tokenprune bench`` measures this adapter's models; optional.

    Called only by that command; importing what is heavy can wait until something is measured.
    """
    raise NotImplementedError
