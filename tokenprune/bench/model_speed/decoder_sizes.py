# SPDX-License-Identifier: Apache-2.0
"""The sizes of a decoder that is there, and what its cache holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenprune.bench.speed.arithmetic import Attention, DecoderShape, GatedDelta, Mixer
from tokenprune.hf.release import LINEAR, kind_of


def decoder_shape(text: Any) -> DecoderShape:
    """Sizes of a decoder.

    >>> len(decoder_shape(model.model.language_model).mixers)
    8
    """
    config = text.config
    mixers = tuple(_mixer(layer, config, kind_of(text, index)) for index, layer in enumerate(text.layers))
    return DecoderShape(config.hidden_size, mixers, tuple(_width(layer, config) for layer in text.layers))


def cache_bytes(cache: Any) -> int | None:
    """Bytes of what a cache holds now: keys, values and the states of linear attention; None without a cache."""
    return None if cache is None else sum(tensor.nbytes for layer in cache.layers for tensor in _held(layer))


def _width(layer: Any, config: Any) -> int:
    if hasattr(layer.mlp, "experts"):
        return int(config.num_experts_per_tok * config.moe_intermediate_size)
    return int(config.intermediate_size)


def _mixer(layer: Any, config: Any, kind: str) -> Mixer:
    if kind == LINEAR:
        return GatedDelta(
            config.linear_num_key_heads,
            config.linear_num_value_heads,
            config.linear_key_head_dim,
            config.linear_value_head_dim,
            config.linear_conv_kernel_dim,
        )
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    gated = layer.self_attn.q_proj.weight.shape[0] == 2 * heads * size
    return Attention(heads, config.num_key_value_heads, size, gated)


def _held(layer: Any) -> list[Tensor]:
    held = [getattr(layer, name, None) for name in ("keys", "values")]
    for name in ("conv_states", "recurrent_states"):
        states: Mapping[int, Tensor | None] = getattr(layer, name, {})
        held += states.values()
    return [tensor for tensor in held if tensor is not None]
