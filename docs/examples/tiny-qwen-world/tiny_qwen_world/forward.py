# SPDX-License-Identifier: Apache-2.0
"""A forward for training, on the parameters of a real Qwen2.5-VL model.

It computes what the library's forward computes (`tests/world` compares the two), in fewer and larger steps: every
clip has one size, so that frames and windows are batches and not lists, and the questions about a clip share its cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from tiny_qwen_world.model import WINDOW
from tiny_qwen_world.packing import Layout, row_mask
from tokenprune.bench.world.palette import CELL, GRID, SLOT, SLOTS

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

NAMED_LAYER, TOLD_LAYER = 1, 4
"""Decoder layers in which the colour word and the last token of a question learn to look at what is asked about."""
HEADS = 2
"""How many heads of these layers learn it."""
SIDE = WINDOW // CELL
"""Merged tokens along the side of a window."""
ACROSS = GRID // SIDE
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Seen:
    """What a forward saw: shared hidden states at a depth, and the last hidden states of the rows."""

    shared: torch.Tensor
    rows: torch.Tensor
    named: torch.Tensor
    """Log-probability with which heads of an early layer look from the colour word at each visual token, of `look`."""
    told: torch.Tensor
    """The same from the last token of the question, in a layer half-way up."""


def to_patches(frames: torch.Tensor) -> torch.Tensor:
    """uint8 frames `(B, 16, 168, 168, 3)` to patches in window order, `(B, SLOTS, 144, 1176)`, uint8."""
    b = frames.shape[0]
    x = frames.view(b, SLOTS, SLOT, ACROSS, SIDE, 2, 14, ACROSS, SIDE, 2, 14, 3)
    return x.permute(0, 1, 3, 7, 4, 8, 5, 9, 11, 2, 6, 10).reshape(b, SLOTS, GRID * GRID * 4, -1)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def _norm(x: torch.Tensor, norm: nn.Module, eps: float) -> torch.Tensor:
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
    return (y * norm.weight).to(x.dtype)  # type: ignore[operator]


class TrainingForward(nn.Module):
    """Runs the parameters of `model`; holds none of its own.

    Args:
        model: the model to train.
        layout: what every prompt shares.
        tap: shared hidden states are handed out after this many decoder layers.
    """

    vision_cos: torch.Tensor
    vision_sin: torch.Tensor

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, layout: Layout, tap: int = 4) -> None:
        super().__init__()
        self.visual = model.model.visual
        self.text = model.model.language_model
        self.layout = layout
        self.tap = tap
        half = GRID * 2
        y, x = torch.meshgrid(torch.arange(half), torch.arange(half), indexing="ij")
        places = torch.stack([y, x]).view(2, ACROSS, SIDE, 2, ACROSS, SIDE, 2).permute(0, 1, 4, 2, 5, 3, 6)
        cos, sin = self.visual.rotary_pos_emb(torch.zeros(1), places.reshape(2, -1).T)
        self.register_buffer("vision_cos", cos, persistent=False)
        self.register_buffer("vision_sin", sin, persistent=False)

    def see(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches of `to_patches` to merged visual tokens `(B, SLOTS * GRID * GRID, D)` in the library's order."""
        b, slots, count, _ = patches.shape
        weight = self.visual.patch_embed.proj.weight
        std = torch.tensor(STD, device=weight.device).view(1, 3, 1, 1, 1)
        mean = torch.tensor(MEAN, device=weight.device).view(1, 3, 1, 1, 1)
        scaled = (weight / (255 * std)).flatten(1)
        bias = (weight * ((128 / 255 - mean) / std)).flatten(1).sum(1)
        x = F.linear(patches.to(torch.float32 if not _low(weight) else torch.bfloat16) - 128, scaled, bias)
        x = x.view(b * slots, count, -1)
        blocks: list[Any] = list(self.visual.blocks)
        for index, block in enumerate(blocks):
            windows = 1 if index in self.visual.fullatt_block_indexes else ACROSS * ACROSS
            y = _norm(x, block.norm1, 1e-6)
            heads = block.attn.num_heads
            qkv = block.attn.qkv(y).view(b * slots, count, 3, heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            cos, sin = self.vision_cos.to(q.dtype), self.vision_sin.to(q.dtype)
            q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
            split = (b * slots, heads, windows, count // windows, -1)
            q, k, v = (t.reshape(split).transpose(1, 2).flatten(0, 1) for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v)
            y = y.view(b * slots, windows, heads, count // windows, -1).transpose(2, 3).reshape(b * slots, count, -1)
            x = x + block.attn.proj(y)
            y = _norm(x, block.norm2, 1e-6)
            x = x + block.mlp(y)
        merged = self.visual.merger.mlp(_norm(x, self.visual.merger.ln_q, 1e-6).reshape(b * slots * GRID * GRID, -1))
        merged = merged.view(b, slots, ACROSS, ACROSS, SIDE, SIDE, -1).transpose(3, 4)
        return merged.reshape(b, slots * GRID * GRID, -1)

    def forward(
        self,
        visual: torch.Tensor,
        kept: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        named: torch.Tensor,
        first: torch.Tensor,
    ) -> Seen:
        """Hidden states for visual tokens and question rows.

        Args:
            visual: merged visual tokens, `(B, V, D)`.
            kept: which of a clip's visual tokens these are, in order, `(B, V)`.
            ids: question rows, `(B, N, S)`.
            mask: of `row_mask` and `additive`, `(N * S, P + N * S)`.
            named: position of the colour word in each row, `(B, N)`.
            first: position of the last token of the question in each row, `(B, N)`.
        """
        b, n, s = ids.shape
        embed = self.text.embed_tokens
        before = embed(self.layout.before.to(ids.device)).to(visual.dtype).expand(b, -1, -1)
        shared = torch.cat([before, visual], dim=1)
        rows = embed(ids.view(b, n * s)).to(visual.dtype)
        p = shared.shape[1]
        base = p - visual.shape[1]
        places = self.layout.positions.to(ids.device)
        early = places[:, None, :base].expand(-1, b, -1)
        after = (self.layout.next_position + torch.arange(s, device=ids.device)).repeat(n).expand(3, b, -1)
        positions = torch.cat([early, places[:, base + kept], after], dim=2)
        cos, sin = self.text.rotary_emb(visual, positions)
        x = torch.cat([shared, rows], dim=1)
        tapped = x
        looks: list[torch.Tensor] = []
        layers: list[Any] = list(self.text.layers)
        for index, layer in enumerate(layers):
            y = _norm(x, layer.input_layernorm, layer.input_layernorm.variance_epsilon)
            attention = layer.self_attn
            width = attention.head_dim
            q, k, v = (
                f(y).view(b, p + n * s, -1, width).transpose(1, 2)
                for f in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            c, d = cos[:, None].to(q.dtype), sin[:, None].to(q.dtype)
            q, k = _rotate(q, c, d), _rotate(k, c, d)
            groups = attention.num_key_value_groups
            k = k[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2)
            v = v[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2)
            if index in (NAMED_LAYER, TOLD_LAYER):
                at = (named if index == NAMED_LAYER else first) + torch.arange(n, device=ids.device) * s
                looks.append(look(q[:, :HEADS, p:], k[:, :HEADS], at, mask)[..., base:p])
            over = F.scaled_dot_product_attention(q[:, :, :p], k[:, :, :p], v[:, :, :p], is_causal=True)
            asked = F.scaled_dot_product_attention(q[:, :, p:], k, v, attn_mask=mask.to(q.dtype))
            y = torch.cat([over, asked], dim=2).transpose(1, 2).reshape(b, p + n * s, -1)
            x = x + attention.o_proj(y)
            y = _norm(x, layer.post_attention_layernorm, layer.post_attention_layernorm.variance_epsilon)
            x = x + layer.mlp(y)
            if index + 1 == self.tap:
                tapped = x[:, base:p]
        last = _norm(x[:, p:], self.text.norm, self.text.norm.variance_epsilon)
        return Seen(tapped, last.reshape(b, n, s, -1), *looks)


def look(q: torch.Tensor, k: torch.Tensor, at: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of attention from some tokens of the rows.

    Args:
        q: queries of the rows, `(B, heads, N * S, d)`.
        k: all keys, `(B, heads, L, d)`.
        at: which queries, `(B, N)`.
        mask: additive, `(N * S, L)`.

    Returns:
        `(B, heads, N, L)`, float32.
    """
    chosen = q.gather(2, at[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[-1]))
    scores = chosen.float() @ k.float().transpose(2, 3) * q.shape[-1] ** -0.5
    return (scores + mask[at][:, None].float()).log_softmax(-1)


def additive(mask: torch.Tensor) -> torch.Tensor:
    """A bool mask as the one that is added to attention scores."""
    return torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))


def _low(weight: torch.Tensor) -> bool:
    return torch.is_autocast_enabled(weight.device.type)


__all__ = ["Seen", "TrainingForward", "additive", "row_mask", "to_patches"]
