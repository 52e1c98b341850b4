# SPDX-License-Identifier: Apache-2.0
"""How the command line runs every model that an adapter knows; importing this module imports nothing heavy.

Plugins are asked in the order of their names, and so a family's own, such as ``qwen25vl``, comes first.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from tokenprune.hookspecs import hookimpl

if TYPE_CHECKING:
    from tokenprune.bench.runner import VideoRunner
    from tokenprune.bench.speed.request import SpeedBench

NEEDED = ("transformers", "accelerate", "torchvision", "av", "PIL")


@hookimpl
def tokenprune_requirements() -> str | None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    return f'pip install "tokenprune-vlm[hf]" (missing: {", ".join(missing)})' if missing else None


@hookimpl
def tokenprune_runner() -> VideoRunner:
    from tokenprune.hf.frontend.auto import AUTO
    from tokenprune.hf.frontend.runner import FamilyRunner

    return FamilyRunner(AUTO)


@hookimpl
def tokenprune_speed() -> SpeedBench:
    from tokenprune.bench.model_speed.suite import ModelSpeed
    from tokenprune.hf.frontend.auto import AUTO

    return ModelSpeed(AUTO)
