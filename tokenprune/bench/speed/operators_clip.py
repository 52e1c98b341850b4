# SPDX-License-Identifier: Apache-2.0
"""A made-up clip, and the signals that operators read of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tokenprune.attention_view import AttentionView
from tokenprune.bench.speed.scoring import AttentionShape, random_view
from tokenprune.operators.st_merge import STMerge
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

KEY_WIDTH = 80
"""Components of a key of Qwen2.5-VL's vision encoder."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip, and what is made from it once.

    Args:
        features: ``(T*H*W, D)`` in raster order; inside the LLM they are the hidden states as well.
        grid: ``(T, H, W)``.
        shape: of the attention layer that is read.
    """

    features: Tensor
    grid: tuple[int, int, int]
    shape: AttentionShape

    def tokens(self, needs: Sequence[str] = ()) -> VisualTokens:
        """The clip's visual tokens with these signals, made up but for the features; new each time."""
        return VisualTokens(self.features, self.grid, signals={need: self._signal(need) for need in needs})

    def cached_tokens(self) -> VisualTokens:
        """The same as a press sees one layer of the cache: its keys are read as they are held."""
        keys = self.view.keys()
        view = replace(self.view, read_keys=lambda rotated: keys)
        return VisualTokens(self.features, self.grid, signals={"attention": view})

    def _signal(self, name: str) -> Any:
        match name:
            case "attention":
                return self.view
            case "embeddings":
                return self.features
            case "encoder_keys":
                return self.features[:, :KEY_WIDTH]
            case "text":
                return self.text
            case _:
                return self.scores

    @cached_property
    def plan(self) -> TokenPlan:
        """STMerge's, with its defaults."""
        return STMerge().plan(self.tokens())

    @cached_property
    def view(self) -> AttentionView:
        """One layer's; the layers beside it have the same queries and keys, and the one before other hidden states."""
        view = random_view(len(self.features), self.shape, device=self.features.device)
        return replace(
            view,
            read_hidden=self._states(0),
            neighbour=lambda layer: replace(view, read_hidden=self._states(1) if layer < 0 else None),
        )

    def _states(self, moved: int) -> Callable[[Tensor], Tensor]:
        """Reads hidden states by place: a visual token's features, or those ``moved`` tokens on; so no second copy."""
        first, count = self.shape.text_before, len(self.features)
        return lambda places: self.features.index_select(0, (places - first + moved) % count)

    @cached_property
    def text(self) -> Tensor:
        """``(R, D)`` random embeddings of the text; their products with features have about unit variance."""
        width = self.features.shape[1]
        return self._drawn(torch.randn, self.shape.text_rows, width).to(self.features.dtype) / width**0.5

    @cached_property
    def scores(self) -> Tensor:
        """``(N,)`` random scores."""
        return self._drawn(torch.rand, len(self.features))

    def _drawn(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        seeded = torch.Generator("cpu").manual_seed(0)
        return draw(*shape, generator=seeded, dtype=torch.float32, device="cpu").to(self.features.device)

    @cached_property
    def frame_of(self) -> Tensor:
        """``(N,)`` frame of each token, the blocks of a stratified choice."""
        frames, height, width = self.grid
        return torch.arange(frames, device=self.features.device).repeat_interleave(height * width)

    @cached_property
    def frame_sums(self) -> Tensor:
        """``(T, D)`` fp32 sum of each frame's tokens."""
        frames = self.features.view(self.grid[0], -1, self.features.shape[1])
        return torch.stack([frame.float().sum(dim=0) for frame in frames])
