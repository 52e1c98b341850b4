# SPDX-License-Identifier: Apache-2.0
"""What the configurations of random models of all families have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch

STD = 0.02
"""Standard deviation of the random matrices."""
MARKS: Mapping[str, Any] = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
"""The control tokens of the released models."""


@dataclass(frozen=True)
class DecoderSizes:
    """Sizes that decoders of all families have.

    Args:
        layers: decoder layers.
        hidden: width of a hidden state.
        heads: query heads.
        kv_heads: key and value heads.
        intermediate: width of the feed-forward network.
        tied: whether the language head is the embedding.
        cpu_dtype: what the model is built in on a CPU where nothing else is asked for.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    _: KW_ONLY
    tied: bool
    cpu_dtype: torch.dtype = torch.bfloat16


def text_config(sizes: DecoderSizes, vocabulary: int, longest: int, rope: Mapping[str, Any]) -> dict[str, Any]:
    """The decoder's part of a configuration.

    Args:
        sizes: of the decoder.
        vocabulary: rows of the embedding.
        longest: positions it takes.
        rope: parameters of its rotation beside the type.
    """
    return {
        "vocab_size": vocabulary,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "max_position_embeddings": longest,
        "rms_norm_eps": 1e-6,
        "initializer_range": STD,
        "rope_parameters": {"rope_type": "default", **rope},
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "pad_token_id": 151643,
        "tie_word_embeddings": sizes.tied,
    }
