# SPDX-License-Identifier: Apache-2.0
"""Which models the adapter serves."""

from __future__ import annotations

from torch import nn
from transformers import LlavaOnevisionForConditionalGeneration, Qwen2Model

from tokenprune import UnsupportedModeError
from tokenprune.hf import known_module, only_module


def find_model(model: nn.Module) -> LlavaOnevisionForConditionalGeneration | str:
    """The LLaVA-OneVision inside any wrapper, or one line that says why there is none that can be pruned."""
    found = only_module(model, LlavaOnevisionForConditionalGeneration)
    if found is None:
        return f"{type(model).__name__} does not hold exactly one LlavaOnevisionForConditionalGeneration"
    text = found.model.language_model
    if not isinstance(text, Qwen2Model):
        return f"its language model is a {type(text).__name__}; only Qwen2 has been tried"
    if "sliding_attention" in text.config.layer_types:
        return "the decoder has sliding-window layers, whose cache cannot be cut"
    return found


def require_model(model: nn.Module) -> LlavaOnevisionForConditionalGeneration:
    """The LLaVA-OneVision of a model that the adapter has accepted; quick, for it is asked with each prefill."""
    found = known_module(model, LlavaOnevisionForConditionalGeneration)
    if found is None:
        raise UnsupportedModeError(f"{type(model).__name__} is no LLaVA-OneVision that the adapter accepts")
    return found
