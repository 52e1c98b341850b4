# SPDX-License-Identifier: Apache-2.0
"""A model at step zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tiny_qwen_world.forward import TrainingForward
from tiny_qwen_world.heads import DenseHeads
from tiny_qwen_world.model import WIDTH, build_config
from tiny_qwen_world.packing import build_layout
from tiny_qwen_world.processor import build_processor

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor


@dataclass(frozen=True)
class Built:
    """What a run trains."""

    model: Qwen2_5_VLForConditionalGeneration
    processor: Qwen2_5_VLProcessor
    heads: DenseHeads
    forward: TrainingForward


def build(seed: int, device: torch.device) -> Built:
    """Model, processor, auxiliary heads and training forward, the same for the same seed."""
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    processor = build_processor()
    tokenizer = processor.tokenizer
    config = build_config(tokenizer)
    model = Qwen2_5_VLForConditionalGeneration(config)
    _spread(model)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=24,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.pad_token_id,
    )
    torch.nn.Module.to(model, device)
    model.train()
    heads = DenseHeads(WIDTH).to(device)
    forward = TrainingForward(model, build_layout(tokenizer)).to(device)
    return Built(model, processor, heads, forward)


def _spread(model: torch.nn.Module) -> None:
    """Starts matrices at one over the root of their inputs: the library's 0.02 is for far wider models."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                continue
            fan_in = parameter[0].numel()
            scale = 1 / math.sqrt(fan_in)
            if "embed_tokens" in name:
                scale = 0.05
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")):
                scale *= 0.3
            parameter.normal_(0, scale)
