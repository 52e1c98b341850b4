# SPDX-License-Identifier: Apache-2.0
"""The hooks of what measures models and runs them from the command line (entry-point group ``tokenprune.bench``).

A plugin of this group is written like one of the group ``tokenprune`` (:mod:`tokenprune.hookspecs`), in a module of its
own. These hooks are called only by the commands that need them; importing what is heavy can wait until the runner, the
benchmark or the measuring itself is used. ``tokenprune_requirements`` is asked first, as there.
"""

from __future__ import annotations

from collections.abc import Mapping

from tokenprune.bench.benchmark import Benchmark
from tokenprune.bench.runner import VideoRunner
from tokenprune.bench.speed.request import SpeedBench
from tokenprune.hookspecs import hookimpl, hookspec, tokenprune_requirements

__all__ = ["hookimpl", "tokenprune_benchmarks", "tokenprune_requirements", "tokenprune_runner", "tokenprune_speed"]


@hookspec
def tokenprune_runner() -> VideoRunner:
    """How the command line loads models and asks them about video files."""
    raise NotImplementedError


@hookspec
def tokenprune_benchmarks() -> Mapping[str, Benchmark]:
    """Benchmarks that ``tokenprune eval`` can run, by name."""
    raise NotImplementedError


@hookspec
def tokenprune_speed() -> SpeedBench:
    """How ``tokenprune bench`` measures models."""
    raise NotImplementedError
