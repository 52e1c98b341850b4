# SPDX-License-Identifier: Apache-2.0
"""Sizes of Qwen3.5 models that are built with random weights: three of four layers are of linear attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tokenprune.bench.model_speed.qwen3_shapes import Qwen3Tower
from tokenprune.bench.model_speed.qwen_config import STD, DecoderSizes, text_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

VOCABULARY = 248320


@dataclass(frozen=True)
class Qwen35Shape(DecoderSizes):
    """Sizes of a dense Qwen3.5; each fourth layer is of full attention, its tower that of Qwen3-VL without deepstack.

    >>> QWEN3_5_SHAPES["qwen3.5-9b"].layers
    32

    Args:
        tower: the vision tower.
        key_heads: key heads of linear attention.
        value_heads: value heads of linear attention.
        head_dim: size of a head of full attention, a quarter of which is rotated.
        linear_dim: size of a head of linear attention.
    """

    tower: Qwen3Tower
    key_heads: int = 16
    value_heads: int = 32
    head_dim: int = 256
    linear_dim: int = 128

    def config(self) -> PretrainedConfig:
        """The library's configuration, with the control tokens of the released models."""
        from transformers import Qwen3_5Config

        turned = self.head_dim // 8
        height, width = (turned + 1) // 3, turned // 3
        rope = {
            "rope_theta": 1e7,
            "partial_rotary_factor": 0.25,
            "mrope_section": [turned - height - width, height, width],
            "mrope_interleaved": True,
        }
        linear = {
            "linear_num_key_heads": self.key_heads,
            "linear_num_value_heads": self.value_heads,
            "linear_key_head_dim": self.linear_dim,
            "linear_value_head_dim": self.linear_dim,
        }
        text = text_config(self, VOCABULARY, 262144, rope)
        ends = {"bos_token_id": None, "eos_token_id": 248044, "pad_token_id": None}
        return Qwen3_5Config(
            text_config={**text, **ends, **linear, "head_dim": self.head_dim},
            vision_config={
                "depth": self.tower.depth,
                "hidden_size": self.tower.hidden,
                "intermediate_size": self.tower.intermediate,
                "num_heads": self.tower.heads,
                "out_hidden_size": self.hidden,
                "initializer_range": STD,
            },
            tie_word_embeddings=self.tied,
        )


QWEN3_5_SHAPES: Mapping[str, Qwen35Shape] = {
    "qwen3.5-4b": Qwen35Shape(32, 2560, 16, 4, 9216, tied=True, tower=Qwen3Tower(deepstack=())),
    "qwen3.5-9b": Qwen35Shape(32, 4096, 16, 4, 12288, tied=False, tower=Qwen3Tower(27, 1152, 16, 4304, deepstack=())),
    # Not a released model: a narrow decoder of twelve layers behind a small tower, for a CPU.
    "qwen3.5-0.5b-like": Qwen35Shape(
        12,
        1024,
        8,
        2,
        3584,
        tied=True,
        tower=Qwen3Tower(8, 384, 6, 1024, deepstack=()),
        value_heads=16,
        cpu_dtype=torch.float32,
    ),
}
