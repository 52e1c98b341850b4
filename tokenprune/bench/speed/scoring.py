# SPDX-License-Identifier: Apache-2.0
"""A made-up attention layer for the scorers to read, laid out as the adapters lay it out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenprune.attention_view import AttentionView

ROTARY_BASE = 1e6


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of one attention layer and of the text around the visual tokens; the defaults are Qwen2.5-VL-7B's layer.

    Args:
        heads: query heads.
        kv_heads: key heads.
        head_dim: size of a head.
        text_before: text tokens before the visual tokens.
        text_rows: text tokens after them, whose queries are read.
    """

    heads: int = 28
    kv_heads: int = 4
    head_dim: int = 128
    text_before: int = 16
    text_rows: int = 32


def random_view(
    visual: int, shape: AttentionShape, *, device: torch.device, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> AttentionView:
    """A view of random queries and keys, in the order text, ``visual`` tokens, text.

    As in a model they are stored token by token before RoPE, and rotated when they are read. Drawn in fp32 on the
    CPU, so the same on every device.
    """
    total = shape.text_before + visual + shape.text_rows
    draw = torch.Generator("cpu").manual_seed(seed)

    def normal(tokens: int, heads: int) -> Tensor:
        values = torch.randn(tokens, heads, shape.head_dim, generator=draw, dtype=torch.float32, device="cpu")
        return values.to(device, dtype)

    queries, keys = normal(shape.text_rows, shape.heads), normal(total, shape.kv_heads)
    values = normal(total, shape.kv_heads).transpose(0, 1)
    places = torch.arange(total, device=device)
    rows = places[shape.text_before + visual :]
    cos, sin = _rotary(places, shape.head_dim, dtype)

    def read_queries(rotated: bool) -> Tensor:
        heads = queries.transpose(0, 1)
        return _rotate(heads, cos[rows], sin[rows]) if rotated else heads

    def read_keys(rotated: bool) -> Tensor:
        heads = keys.transpose(0, 1)
        return _rotate(heads, cos, sin) if rotated else heads

    return AttentionView(
        read_queries,
        read_keys,
        text_rows=rows,
        visual_columns=places[shape.text_before : shape.text_before + visual],
        valid_keys=torch.ones(total, dtype=torch.bool, device=device),
        scaling=shape.head_dim**-0.5,
        read_values=lambda: values,
    )


def _rotary(places: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine ``(n, head_dim)`` of one running position; M-RoPE's three cost the same."""
    steps = torch.arange(0, head_dim, 2, device=places.device, dtype=torch.float32) / head_dim
    angles = places.float()[:, None] * ROTARY_BASE**-steps
    both = torch.cat([angles, angles], dim=1)
    return both.cos().to(dtype), both.sin().to(dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
