# SPDX-License-Identifier: Apache-2.0
"""The parts of a Qwen2.5-VL model that pruning touches, found by class inside any wrapper."""

from __future__ import annotations

from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen2_5_VLTextModel,
)

from tokenprune.errors import UnsupportedModeError
from tokenprune.hf import known_module, only_module
from tokenprune.hf.frontend.family import Parts
from tokenprune_qwen25vl.vision import vision_encoder


def find_parts(model: nn.Module) -> Parts | str:
    """The parts, or one line that says why this is no Qwen2.5-VL that can be pruned."""
    head = only_module(model, Qwen2_5_VLForConditionalGeneration)
    prompt = only_module(model, Qwen2_5_VLModel)
    text = only_module(model, Qwen2_5_VLTextModel)
    if head is None or prompt is None or text is None:
        return _why_not(model)
    if "sliding_attention" in (text.config.layer_types or ()):
        return "the decoder has sliding-window layers, whose cache cannot be cut"
    return Parts(head, prompt, text, prompt.visual, vision_encoder(prompt.visual))


def require_parts(model: nn.Module) -> Parts:
    """The parts of a model that the adapter has accepted; quick, for it is asked with each prefill."""
    head = known_module(model, Qwen2_5_VLForConditionalGeneration)
    prompt = known_module(model, Qwen2_5_VLModel)
    text = known_module(model, Qwen2_5_VLTextModel)
    if head is None or prompt is None or text is None:
        raise UnsupportedModeError(f"{type(model).__name__} is no Qwen2.5-VL that the adapter accepts")
    return Parts(head, prompt, text, prompt.visual, vision_encoder(prompt.visual))


def _why_not(model: nn.Module) -> str:
    name = type(model).__name__
    heads = sum(isinstance(module, Qwen2_5_VLForConditionalGeneration) for module in model.modules())
    if heads:
        return f"{name} holds {heads} Qwen2.5-VL models with language head, or more decoders than heads; attach to one"
    if any(isinstance(module, Qwen2_5_VLModel) for module in model.modules()):
        return (
            f"{name} has no language head, as AutoModel loads it; load the checkpoint with AutoModelForImageTextToText "
            "or Qwen2_5_VLForConditionalGeneration"
        )
    return f"{name} is no Qwen2.5-VL: it holds no Qwen2_5_VLForConditionalGeneration"
