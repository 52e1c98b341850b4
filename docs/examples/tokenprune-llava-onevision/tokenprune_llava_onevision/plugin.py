# SPDX-License-Identifier: Apache-2.0
"""The adapter; importing this module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from torch import nn

from tokenprune import Accepted, AttentionReader, Declined, ModelAdapter, ModelPort, Prompt, VisualSpan, hookimpl


@hookimpl
def tokenprune_requirements() -> str | None:
    return None if find_spec("transformers") else 'pip install "transformers>=5.17"'


@hookimpl
def tokenprune_model_adapters() -> Sequence[ModelAdapter]:
    return [LlavaOnevisionAdapter()]


class LlavaOnevisionAdapter:
    """Answers for LLaVA-OneVision."""

    name = "llava_onevision"

    def accepts(self, model: nn.Module) -> Accepted | Declined:
        from tokenprune_llava_onevision.models import find_model

        found = find_model(model)
        return Declined(found) if isinstance(found, str) else Accepted(depth=len(found.model.language_model.layers))

    def boundaries(self, model: nn.Module, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
        from tokenprune_llava_onevision.boundaries import visual_boundaries
        from tokenprune_llava_onevision.models import require_model

        return visual_boundaries(prompt, require_model(model).config)

    def attention(self, model: nn.Module, layer: int) -> AttentionReader:
        from tokenprune.hf import ProjectionReader
        from tokenprune_llava_onevision.models import require_model

        attention = require_model(model).model.language_model.layers[layer].self_attn
        return ProjectionReader(attention, attention.q_proj, attention.k_proj, attention.head_dim, attention.scaling)

    def port(self, model: nn.Module) -> ModelPort:
        from tokenprune.hf import HFDecoder
        from tokenprune_llava_onevision.models import require_model

        found = require_model(model)
        return HFDecoder(model=found, prompt=found.model, text=found.model.language_model)
