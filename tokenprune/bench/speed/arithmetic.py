# SPDX-License-Identifier: Apache-2.0
"""Work and memory of a decoder by formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder that its cost depends on.

    Args:
        layers: decoder layers.
        hidden: width of a hidden state.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: size of a head.
        intermediate: width of the gated feed-forward network.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int


# `torch.utils.flop_counter` would need one more prefill of every row, counts the masked half of causal attention, and
# knows no attention of a CPU but the eager one. A test holds this formula against it.
def prefill_flops(shape: DecoderShape, layer_tokens: Sequence[Sequence[int]]) -> int:
    """Floating-point operations of the decoder layers over a prompt; a multiply and an add are two.

    The projections, the gated feed-forward network (three matrices) and causal attention, in which token i attends to
    i tokens. Norms, rotary embedding, softmax, the language head and the operators themselves are left out.

    Args:
        shape: the decoder's.
        layer_tokens: per layer the tokens it computed, per row of the batch.
    """
    attention_width = shape.heads * shape.head_dim
    weights = shape.hidden * (2 * attention_width + 2 * shape.kv_heads * shape.head_dim + 3 * shape.intermediate)
    total = 0
    for rows in layer_tokens:
        for tokens in rows:
            pairs = tokens * (tokens + 1) // 2
            total += 2 * weights * tokens + 4 * attention_width * pairs
    return total


def kv_bytes(shape: DecoderShape, rows: int, longest: int, item_size: int) -> int:
    """Bytes of a KV cache of ``rows`` rows that store ``longest`` tokens each, padding counted, in every layer."""
    return rows * longest * shape.layers * 2 * shape.kv_heads * shape.head_dim * item_size
