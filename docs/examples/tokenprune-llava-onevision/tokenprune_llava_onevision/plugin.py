# SPDX-License-Identifier: Apache-2.0
"""The hooks; importing this module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from torch import nn

from tokenprune import Accepted, AttentionReader, Declined, DecoderPort, Prompt, VisualSpan, hookimpl
from tokenprune.operator import PrunableCache


@hookimpl
def tokenprune_requirements() -> str | None:
    return None if find_spec("transformers") else 'pip install "transformers>=5.17"'


@hookimpl
def tokenprune_adapter(model: nn.Module) -> Accepted | Declined:
    from tokenprune_llava_onevision.models import find_model

    found = find_model(model)
    return Declined(found) if isinstance(found, str) else Accepted(depth=len(found.model.language_model.layers))


@hookimpl
def tokenprune_decoder(model: nn.Module) -> DecoderPort:
    from tokenprune.hf import HFDecoder
    from tokenprune_llava_onevision.models import require_model

    found = require_model(model)
    return HFDecoder(model=found, prompt=found.model, text=found.model.language_model)


@hookimpl
def tokenprune_visual_boundaries(model: nn.Module, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
    from tokenprune_llava_onevision.boundaries import visual_boundaries
    from tokenprune_llava_onevision.models import require_model

    return visual_boundaries(prompt, require_model(model).config)


@hookimpl
def tokenprune_attention_view(model: nn.Module, layer: int) -> AttentionReader:
    from tokenprune.hf import ProjectionReader
    from tokenprune_llava_onevision.models import require_model

    attention = require_model(model).model.language_model.layers[layer].self_attn
    return ProjectionReader(attention, attention.q_proj, attention.k_proj, attention.head_dim, attention.scaling)


@hookimpl
def tokenprune_cache_layers(model: nn.Module, cache: object) -> PrunableCache:
    from tokenprune.hf import make_prunable

    return make_prunable(cache)
