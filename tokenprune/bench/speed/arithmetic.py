# SPDX-License-Identifier: Apache-2.0
"""Work and memory of a decoder by formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

FLOAT32 = 4
"""Bytes of a number in a linear-attention layer's matrices of state, in a model of any dtype."""


class Mixer(Protocol):
    """What a decoder layer mixes its tokens with."""

    def weights(self, hidden: int) -> int:
        """Numbers in its matrices, where a hidden state is ``hidden`` wide."""
        ...

    def flops(self, tokens: int) -> int:
        """Floating-point operations of mixing a row of tokens, beyond those matrices."""
        ...

    def cache_bytes(self, tokens: int, item_size: int) -> int:
        """Bytes that it keeps of a row of tokens."""
        ...


@dataclass(frozen=True)
class Attention:
    """Causal attention, in which token i attends to i tokens; keys and values of every token are kept.

    Args:
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: size of a head.
        gated: whether a gate as wide as the queries is projected beside them.
    """

    heads: int
    kv_heads: int
    head_dim: int
    gated: bool = False

    def weights(self, hidden: int) -> int:
        return hidden * self.head_dim * ((2 + self.gated) * self.heads + 2 * self.kv_heads)

    def flops(self, tokens: int) -> int:
        return 4 * self.heads * self.head_dim * (tokens * (tokens + 1) // 2)

    def cache_bytes(self, tokens: int, item_size: int) -> int:
        return tokens * 2 * self.kv_heads * self.head_dim * item_size


@dataclass(frozen=True)
class GatedDelta:
    """The gated delta rule behind a short convolution (Qwen3.5's linear attention); a state is kept, and no token.

    The rule's work is that of its definition, token after token: a state of each head is read with the key, written
    with key times what is new, and read with the query (Yang et al., "Gated Delta Networks", equation 10). Kernels
    that take tokens in chunks do more, to be faster.

    Args:
        key_heads: query and key heads.
        value_heads: value heads, each of which has a state.
        key_dim: size of a query or key.
        value_dim: size of a value.
        kernel: tokens that the convolution sees.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int

    @property
    def channels(self) -> int:
        """Width of queries, keys and values together, which pass through the convolution."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def weights(self, hidden: int) -> int:
        gate_and_output = 2 * self.value_heads * self.value_dim
        decay_and_rate = 2 * self.value_heads
        return hidden * (self.channels + gate_and_output + decay_and_rate)

    def flops(self, tokens: int) -> int:
        rule = 3 * 2 * self.value_heads * self.key_dim * self.value_dim
        return tokens * (2 * self.kernel * self.channels + rule)

    def cache_bytes(self, tokens: int, item_size: int) -> int:
        state = self.value_heads * self.key_dim * self.value_dim
        return self.kernel * self.channels * item_size + state * FLOAT32


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder that its cost depends on.

    Args:
        hidden: width of a hidden state.
        mixers: of each layer.
        widths: of each layer's gated feed-forward network; of experts, those together that a token is sent to.
    """

    hidden: int
    mixers: tuple[Mixer, ...]
    widths: tuple[int, ...]


# `torch.utils.flop_counter` would need one more prefill of every row, counts the masked half of causal attention, and
# knows no attention of a CPU but the eager one. A test holds this formula against it.
def prefill_flops(shape: DecoderShape, layer_tokens: Sequence[Sequence[int]]) -> int:
    """Floating-point operations of the decoder layers over a prompt; a multiply and an add are two.

    The projections, the gated feed-forward network (three matrices) and what mixes tokens. Norms, rotary embedding,
    softmax, the choice of experts, the language head and the operators themselves are left out.

    Args:
        shape: the decoder's.
        layer_tokens: per layer the tokens it computed, per row of the batch.
    """
    total = 0
    for mixer, width, rows in zip(shape.mixers, shape.widths, layer_tokens):
        weights = mixer.weights(shape.hidden) + 3 * shape.hidden * width
        total += sum(2 * weights * tokens + mixer.flops(tokens) for tokens in rows)
    return total


def kv_bytes(shape: DecoderShape, rows: int, longest: int, item_size: int) -> int:
    """Bytes of a cache of ``rows`` rows that store ``longest`` tokens each, padding counted, in every layer.

    A layer of linear attention holds a state instead, whose size no token changes.
    """
    return rows * sum(mixer.cache_bytes(longest, item_size) for mixer in shape.mixers)
