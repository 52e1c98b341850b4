# SPDX-License-Identifier: Apache-2.0
"""The shape of the shipped model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenprune.bench.world.palette import FPS, SLOT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLConfig

WIDTH = 128
LAYERS = 8
VISION_WIDTH = 96
WINDOW = 84
"""Side of an attention window of the vision tower in pixels: a quarter of a frame, so that all are of one size."""


def build_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """The configuration for this tokenizer.

    The rotary base is 10, not a million: prompts are some 60 positions long, and only a small base gives the
    width rows of M-RoPE, which have the slowest frequencies, a turn that can be told apart over six columns.
    """
    from transformers import Qwen2_5_VLConfig

    def token(name: str) -> int:
        return tokenizer.get_vocab()[f"<|{name}|>"]

    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 352,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": token("endoftext"),
            "eos_token_id": token("im_end"),
            "pad_token_id": token("endoftext"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 256,
            "num_heads": 4,
            "out_hidden_size": WIDTH,
            "window_size": WINDOW,
            "fullatt_block_indexes": [1],
            "tokens_per_second": FPS // SLOT,
        },
        image_token_id=token("image_pad"),
        video_token_id=token("video_pad"),
        vision_start_token_id=token("vision_start"),
        vision_end_token_id=token("vision_end"),
        tie_word_embeddings=True,
    )
