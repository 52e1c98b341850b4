# SPDX-License-Identifier: Apache-2.0
"""Sizes of Qwen3-VL models that are built with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tokenprune.bench.model_speed.qwen_config import MARKS, STD, DecoderSizes, text_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Qwen3Tower:
    """Sizes of a vision tower; what blocks ``deepstack`` put out is added to the first decoder layers."""

    depth: int = 24
    hidden: int = 1024
    heads: int = 16
    intermediate: int = 4096
    deepstack: tuple[int, ...] = (5, 11, 17)


@dataclass(frozen=True)
class Qwen3Shape(DecoderSizes):
    """Sizes of a Qwen3-VL.

    >>> QWEN3_SHAPES["qwen3-vl-8b"].layers
    36

    Args:
        tower: the vision tower.
        head_dim: size of a head.
    """

    tower: Qwen3Tower = Qwen3Tower()
    head_dim: int = 128

    def config(self) -> PretrainedConfig:
        """The library's configuration, with the control tokens of the released models."""
        from transformers import Qwen3VLConfig

        half = self.head_dim // 2
        side = half * 20 // 64
        rope = {"rope_theta": 5e6, "mrope_section": [half - 2 * side, side, side], "mrope_interleaved": True}
        return Qwen3VLConfig(
            text_config={**text_config(self, 151936, 262144, rope), "head_dim": self.head_dim},
            vision_config={
                "depth": self.tower.depth,
                "hidden_size": self.tower.hidden,
                "intermediate_size": self.tower.intermediate,
                "num_heads": self.tower.heads,
                "deepstack_visual_indexes": list(self.tower.deepstack),
                "out_hidden_size": self.hidden,
                "initializer_range": STD,
            },
            tie_word_embeddings=self.tied,
            **MARKS,
        )


QWEN3_SHAPES: Mapping[str, Qwen3Shape] = {
    "qwen3-vl-2b": Qwen3Shape(28, 2048, 16, 8, 6144, tied=True),
    "qwen3-vl-4b": Qwen3Shape(36, 2560, 32, 8, 9728, tied=True),
    "qwen3-vl-8b": Qwen3Shape(
        36, 4096, 32, 8, 12288, tied=False, tower=Qwen3Tower(27, 1152, 16, 4304, deepstack=(8, 16, 24))
    ),
    # Not a released model: half as deep as the smallest decoder of Qwen3, behind a small tower, for a CPU.
    "qwen3-vl-0.4b-like": Qwen3Shape(
        14,
        1024,
        16,
        8,
        3072,
        tied=True,
        tower=Qwen3Tower(8, 384, 6, 1024, deepstack=(2, 4, 6)),
        cpu_dtype=torch.float32,
    ),
}
