# SPDX-License-Identifier: Apache-2.0
"""A prompt batch whose layout the author of an adapter test knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tokenprune.adapter import VisualSpan


@dataclass(frozen=True, eq=False)
class VisualPrompt:
    """A batch as it is passed to the model, and where its videos and images really are.

    >>> image = VisualSpan("image", (1, 1, 2), torch.tensor([1, 2]))
    >>> prompt = VisualPrompt({"input_ids": torch.tensor([[5, 9, 9, 6]])}, [[image]])
    >>> prompt.columns(0), prompt.text(0)
    ([1, 2], [0, 3])

    Args:
        inputs: keyword arguments of ``generate`` and of the forward: ``input_ids`` ``(B, L)``, padded on the left,
            ``attention_mask`` ``(B, L)``, pixels, and whatever else the processor returns.
        spans: per row its videos and images, in order, as the adapter has to find them.
    """

    inputs: dict[str, Any]
    spans: Sequence[Sequence[VisualSpan]]

    @property
    def input_ids(self) -> Tensor:
        return self.inputs["input_ids"]

    @property
    def length(self) -> int:
        """Columns of the batch, padding included."""
        return self.input_ids.shape[1]

    @property
    def valid(self) -> Tensor:
        """``(B, L)`` bool, False for padding."""
        mask = self.inputs.get("attention_mask")
        return torch.ones_like(self.input_ids, dtype=torch.bool) if mask is None else mask.bool()

    @property
    def placeholders(self) -> list[int]:
        """Ids that stand for visual tokens."""
        found = [self.input_ids[row, s.columns].unique() for row, spans in enumerate(self.spans) for s in spans]
        return torch.cat(found).unique().tolist() if found else []

    def columns(self, row: int, modalities: Sequence[str] = ("video", "image")) -> list[int]:
        """Columns of the row's visual tokens, in order."""
        return [c for span in self.spans[row] if span.modality in modalities for c in span.columns.tolist()]

    def text(self, row: int) -> list[int]:
        """Columns of the row's text tokens, placeholders outside a grid among them."""
        visual = set(self.columns(row))
        return [c for c in self.valid[row].nonzero().squeeze(1).tolist() if c not in visual]

    def last_visual(self, row: int) -> int:
        """Column of the row's last visual token; -1 without any."""
        return max(self.columns(row), default=-1)

    def answered(self, new: Tensor) -> VisualPrompt:
        """The same followed by text tokens ``(B, n)``; other inputs of the shape of ``input_ids`` get zeros (text)."""
        inputs = dict(self.inputs)
        for name, value in self.inputs.items():
            if not isinstance(value, Tensor) or value.shape != self.input_ids.shape:
                continue
            more = torch.zeros_like(new, dtype=value.dtype)
            if name in ("input_ids", "attention_mask"):
                more = new if name == "input_ids" else torch.ones_like(more)
            inputs[name] = torch.cat([value, more], dim=1)
        return replace(self, inputs=inputs)
