# SPDX-License-Identifier: Apache-2.0
"""What an operator may read of attention: one layer's queries of the text rows and keys, for one prompt row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenprune.errors import InvalidValueError
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True, eq=False)
class AttentionView:
    """Queries of the text rows and keys of one decoder layer, for one row of the batch.

    Args:
        read_queries: ``rotated -> (heads, R, head_dim)``, the text rows' queries with or without RoPE.
        read_keys: ``rotated -> (kv_heads, L, head_dim)``, all keys the rows could see, earlier turns first.
        text_rows: ``(R,)`` int64, where on the key axis each text row stands.
        visual_columns: ``(N,)`` int64, where on the key axis each visual token to be scored stands.
        valid_keys: ``(L,)`` bool, False for padding.
        scaling: factor of the query-key product, usually ``head_dim ** -0.5``.
        mass: ``(L,)`` fp32, how many tokens each key stands for in the layer's own softmax; None: one each.
        read_values: ``() -> (kv_heads, L, head_dim)``, where values can be read.
    """

    read_queries: Callable[[bool], Tensor]
    read_keys: Callable[[bool], Tensor]
    text_rows: Tensor
    visual_columns: Tensor
    valid_keys: Tensor
    scaling: float
    mass: Tensor | None = None
    read_values: Callable[[], Tensor] | None = None

    def values(self) -> Tensor:
        """``(kv_heads, L, head_dim)`` values of all keys; only on the finished cache.

        Raises:
            InvalidValueError: inside the LLM, where they are not captured.
        """
        if self.read_values is None:
            raise InvalidValueError("values can be read on the finished cache only, by an operator after the prefill")
        return self.read_values()

    def queries(self, rotated: bool = True) -> Tensor:
        """``(heads, R, head_dim)`` queries of the text rows, rotated as the layer does, or before RoPE."""
        return self.read_queries(rotated)

    def keys(self, rotated: bool = True) -> Tensor:
        """``(kv_heads, L, head_dim)`` keys, rotated as the layer does, or before RoPE."""
        return self.read_keys(rotated)

    def visible(self, rows: slice) -> Tensor:
        """``(r, L)`` bool: which keys the text rows of the slice may see (causal, padding masked)."""
        key_places = torch.arange(len(self.valid_keys), device=self.valid_keys.device)
        return (key_places <= self.text_rows[rows].unsqueeze(1)).logical_and_(self.valid_keys)


def attention_of(tokens: VisualTokens) -> AttentionView:
    """The attention among the signals of these tokens.

    Raises:
        InvalidValueError: there is none; an operator that reads it says so in ``needs``.
    """
    view = tokens.signals.get("attention")
    if not isinstance(view, AttentionView):
        raise InvalidValueError('these tokens carry no attention; an operator that reads it needs=("attention",)')
    return view
