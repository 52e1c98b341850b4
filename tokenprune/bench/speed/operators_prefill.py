# SPDX-License-Identifier: Apache-2.0
"""One decoder layer over a clip, with random weights: what the time of an operator is a share of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenprune.bench.speed.operators_clip import Clip
from tokenprune.bench.speed.scoring import AttentionShape
from tokenprune.bench.speed.subject import Run, Subject

LAYER = "plain decoder layer"
STD = 0.02


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """A layer as Qwen2.5-VL's: norms, grouped causal attention, gated feed-forward network; no biases and no RoPE.

    All layers of such a decoder cost the same, so a prefill is one of them times their number; the language head over
    the last token, the embedding and the final norm are left out.

    Args:
        weights: of the projections, ``(out, in)`` each: queries, keys, values, output, gate, up, down.
        head_dim: size of a head.
    """

    weights: tuple[Tensor, ...]
    head_dim: int

    @classmethod
    def random(
        cls, width: int, intermediate: int, shape: AttentionShape, device: torch.device, dtype: torch.dtype
    ) -> DecoderLayer:
        """One of these sizes; drawn where it is used, for what the weights are does not change what they cost."""
        inner, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        sizes = [(inner, width), (narrow, width), (narrow, width), (width, inner)]
        sizes += [(intermediate, width), (intermediate, width), (width, intermediate)]
        draw = torch.Generator(device).manual_seed(0)
        made = (torch.empty(size, device=device, dtype=dtype).normal_(0, STD, generator=draw) for size in sizes)
        return cls(tuple(made), shape.head_dim)

    def __call__(self, states: Tensor) -> Tensor:
        """``(N, D)`` hidden states of one prompt, put through the layer."""
        queries, keys, values, output, gate, up, down = self.weights
        normed = _normed(states)
        q, k, v = (self._heads(normed, weight) for weight in (queries, keys, values))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        states = states + F.linear(mixed.transpose(1, 2).flatten(2)[0], output)
        normed = _normed(states)
        return states + F.linear(F.silu(F.linear(normed, gate)).mul_(F.linear(normed, up)), down)

    def _heads(self, states: Tensor, weight: Tensor) -> Tensor:
        """``(1, heads, N, head_dim)``."""
        return F.linear(states, weight).unflatten(1, (-1, self.head_dim)).transpose(0, 1)[None]


def prefill_subject(clip: Clip, layer: DecoderLayer) -> Subject:
    """The layer over the clip's visual tokens."""

    def ready() -> Run:
        return lambda: layer(clip.features)

    return Subject(ready, keeps=False)


def _normed(states: Tensor) -> Tensor:
    return F.rms_norm(states, states.shape[-1:])
