# SPDX-License-Identifier: Apache-2.0
"""The Qwen2.5-VL adapter's hooks; importing this module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import nn

from tokenprune.adapter import Accepted, AttentionReader, Declined, DecoderPort, Prompt, VisualSpan
from tokenprune.hookspecs import hookimpl
from tokenprune.operator import PrunableCache

if TYPE_CHECKING:
    from tokenprune.bench.benchmark import Benchmark
    from tokenprune.bench.runner import VideoRunner
    from tokenprune.bench.speed.request import SpeedBench

EXTRA = ("transformers", "accelerate", "torchvision", "av", "PIL")


@hookimpl
def tokenprune_requirements() -> str | None:
    missing = [name for name in EXTRA if find_spec(name) is None]
    return f'pip install "tokenprune-vlm[qwen25vl]" (missing: {", ".join(missing)})' if missing else None


@hookimpl
def tokenprune_adapter(model: nn.Module) -> Accepted | Declined:
    from tokenprune_qwen25vl.parts import find_parts

    parts = find_parts(model)
    if isinstance(parts, str):
        return Declined(parts)
    return Accepted(depth=len(parts.text.layers))


@hookimpl
def tokenprune_decoder(model: nn.Module) -> DecoderPort:
    from tokenprune.hf import HFDecoder
    from tokenprune_qwen25vl.parts import require_parts

    parts = require_parts(model)
    return HFDecoder(parts.model, parts.prompt, parts.text)


@hookimpl
def tokenprune_visual_boundaries(model: nn.Module, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
    from tokenprune_qwen25vl.boundaries import visual_boundaries
    from tokenprune_qwen25vl.parts import require_parts

    config = require_parts(model).model.config
    return visual_boundaries(prompt, {"image": config.image_token_id, "video": config.video_token_id})


@hookimpl
def tokenprune_attention_view(model: nn.Module, layer: int) -> AttentionReader:
    from tokenprune.hf import ProjectionReader
    from tokenprune_qwen25vl.parts import require_parts

    attention = require_parts(model).text.layers[layer].self_attn
    return ProjectionReader(
        attention, attention.q_proj, attention.k_proj, head_dim=attention.head_dim, scaling=attention.scaling
    )


@hookimpl
def tokenprune_cache_layers(model: nn.Module, cache: object) -> PrunableCache:
    from tokenprune.hf import make_prunable

    return make_prunable(cache)


@hookimpl
def tokenprune_runner() -> VideoRunner:
    from tokenprune_qwen25vl.runner import QwenRunner

    return QwenRunner()


@hookimpl
def tokenprune_benchmarks() -> Mapping[str, Benchmark]:
    from tokenprune.bench.world_benchmark import WorldBenchmark
    from tokenprune_qwen25vl.family import QWEN25VL

    return {"world": WorldBenchmark(QWEN25VL)}


@hookimpl
def tokenprune_speed() -> SpeedBench:
    from tokenprune.bench.model_speed.suite import ModelSpeed
    from tokenprune_qwen25vl.family import QWEN25VL

    return ModelSpeed(QWEN25VL)
