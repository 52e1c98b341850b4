# SPDX-License-Identifier: Apache-2.0
"""Sizes of LLaVA-OneVision models that are built with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tokenprune.bench.model_speed.qwen_config import DecoderSizes, text_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class SiglipTower:
    """Sizes of a vision tower without a pooling head: SigLIP so400m but for its last, unused layer."""

    depth: int = 26
    hidden: int = 1152
    heads: int = 16
    intermediate: int = 4304
    image: int = 384
    patch: int = 14


@dataclass(frozen=True)
class LlavaShape(DecoderSizes):
    """Sizes of a LLaVA-OneVision around a Qwen2.

    >>> LLAVA_SHAPES["llava-onevision-7b"].layers
    28

    Args:
        vocabulary: rows of the embedding.
        tower: the vision tower.
    """

    vocabulary: int
    tower: SiglipTower = SiglipTower()

    def config(self) -> PretrainedConfig:
        """The library's configuration, with the control tokens of the released models."""
        from transformers import LlavaOnevisionConfig

        text = text_config(self, self.vocabulary, 32768, {"rope_theta": 1e6})
        return LlavaOnevisionConfig(
            text_config={**text, "model_type": "qwen2"},
            vision_config={
                "model_type": "siglip_vision_model",
                "num_hidden_layers": self.tower.depth,
                "hidden_size": self.tower.hidden,
                "intermediate_size": self.tower.intermediate,
                "num_attention_heads": self.tower.heads,
                "image_size": self.tower.image,
                "patch_size": self.tower.patch,
                "vision_use_head": False,
            },
            image_token_index=151646,
            video_token_index=151647,
            tie_word_embeddings=self.tied,
        )


LLAVA_SHAPES: Mapping[str, LlavaShape] = {
    "llava-onevision-0.5b": LlavaShape(24, 896, 14, 2, 4864, 152000, tied=True),
    "llava-onevision-7b": LlavaShape(28, 3584, 28, 4, 18944, 152128, tied=False),
    # Not a released model: the smallest decoder behind a small tower, for a CPU.
    "llava-onevision-0.5b-like": LlavaShape(
        24, 896, 14, 2, 4864, 152000, tied=True, tower=SiglipTower(8, 384, 6, 1024), cpu_dtype=torch.float32
    ),
}
