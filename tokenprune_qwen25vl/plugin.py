# SPDX-License-Identifier: Apache-2.0
"""The Qwen2.5-VL adapter; importing this module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from torch import nn

from tokenprune.adapter import Accepted, AttentionReader, Declined, ModelAdapter, ModelPort, Prompt, VisualSpan
from tokenprune.hookspecs import hookimpl

EXTRA = ("transformers", "accelerate", "torchvision", "av", "PIL")


@hookimpl
def tokenprune_requirements() -> str | None:
    missing = [name for name in EXTRA if find_spec(name) is None]
    return f'pip install "tokenprune-vlm[qwen25vl]" (missing: {", ".join(missing)})' if missing else None


@hookimpl
def tokenprune_model_adapters() -> Sequence[ModelAdapter]:
    return [Qwen25VLAdapter()]


class Qwen25VLAdapter:
    """Answers for Qwen2.5-VL (a :class:`tokenprune.ModelAdapter`)."""

    name = "qwen25vl"

    def accepts(self, model: nn.Module) -> Accepted | Declined:
        from tokenprune_qwen25vl.parts import find_parts

        parts = find_parts(model)
        return Declined(parts) if isinstance(parts, str) else Accepted(depth=len(parts.text.layers))

    def boundaries(self, model: nn.Module, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
        from tokenprune_qwen25vl.boundaries import visual_boundaries
        from tokenprune_qwen25vl.parts import require_parts

        config = require_parts(model).model.config
        return visual_boundaries(prompt, {"image": config.image_token_id, "video": config.video_token_id})

    def attention(self, model: nn.Module, layer: int) -> AttentionReader:
        from tokenprune.hf import ProjectionReader
        from tokenprune_qwen25vl.parts import require_parts

        attention = require_parts(model).text.layers[layer].self_attn
        return ProjectionReader(
            attention, attention.q_proj, attention.k_proj, head_dim=attention.head_dim, scaling=attention.scaling
        )

    def port(self, model: nn.Module) -> ModelPort:
        from tokenprune.hf import HFDecoder
        from tokenprune_qwen25vl.parts import require_parts

        parts = require_parts(model)
        return HFDecoder(parts.model, parts.prompt, parts.text, parts.encoder)
