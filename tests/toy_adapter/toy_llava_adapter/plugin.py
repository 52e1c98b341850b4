# SPDX-License-Identifier: Apache-2.0
"""The adapter: images that follow each other without a token between them are the frames of one video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tokenprune import (
    Accepted,
    AttentionReader,
    Declined,
    ModelAdapter,
    ModelPort,
    Prompt,
    UnsupportedModeError,
    VisualSpan,
    hookimpl,
)


def find_llava(model: nn.Module) -> Any:
    from transformers import LlavaForConditionalGeneration

    from tokenprune.hf import only_module

    return only_module(model, LlavaForConditionalGeneration)


@hookimpl
def tokenprune_model_adapters() -> Sequence[ModelAdapter]:
    return [ToyLlava()]


class ToyLlava:
    name = "toy_llava"

    def accepts(self, model: nn.Module) -> Accepted | Declined:
        llava = find_llava(model)
        if llava is None:
            return Declined(f"{type(model).__name__} does not hold exactly one LlavaForConditionalGeneration")
        return Accepted(depth=llava.config.text_config.num_hidden_layers)

    def boundaries(self, model: nn.Module, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
        from tokenprune.hf import placeholder_runs

        config = find_llava(model).config
        side = config.vision_config.image_size // config.vision_config.patch_size
        rows: list[list[VisualSpan]] = []
        for runs in placeholder_runs(prompt, {"video": config.image_token_id}):
            spans: list[VisualSpan] = []
            for run in runs:
                frames, rest = divmod(len(run), side * side)
                if rest:
                    raise UnsupportedModeError(f"{len(run)} image tokens are no whole number of {side}x{side} images")
                spans.append(VisualSpan(run.modality, (frames, side, side), torch.arange(run.start, run.stop)))
            rows.append(spans)
        return rows

    def attention(self, model: nn.Module, layer: int) -> AttentionReader:
        from tokenprune.hf import ProjectionReader

        attention = find_llava(model).model.language_model.layers[layer].self_attn
        return ProjectionReader(
            attention, attention.q_proj, attention.k_proj, head_dim=attention.head_dim, scaling=attention.scaling
        )

    def port(self, model: nn.Module) -> ModelPort:
        from tokenprune.hf import HFDecoder

        llava = find_llava(model)
        return HFDecoder(llava, llava.model, llava.model.language_model)
