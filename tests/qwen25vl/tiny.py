# SPDX-License-Identifier: Apache-2.0
"""A tiny random Qwen2.5-VL with the library's own processor classes, built in memory or saved as a checkpoint.

The tokenizer knows the 256 bytes and Qwen's control tokens, nothing else, so nothing has to be trained or downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

CONTROL = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
BOX = 28
"""Side in pixels of what one visual token covers."""
LAYERS = 4

TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> Any:
    from transformers import Qwen2Tokenizer

    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(code) for code in shown + [256 + i for i in range(256 - len(shown))]]
    return Qwen2Tokenizer(
        vocab={letter: i for i, letter in enumerate(alphabet)},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=list(CONTROL),
        model_max_length=32768,
    )


@lru_cache
def tiny_processor(frame_pixels: int = 6 * BOX * BOX) -> Any:
    """One processor for all tests, not to be changed."""
    return build_processor(frame_pixels)


def build_processor(frame_pixels: int = 6 * BOX * BOX) -> Any:
    """Qwen's processor; a frame becomes at most `frame_pixels` large."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    size = {"shortest_edge": BOX * BOX, "longest_edge": frame_pixels}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=dict(size)),
        tokenizer=tiny_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(size=dict(size)),
        chat_template=TEMPLATE,
    )


def tiny_config(layers: int = LAYERS) -> Any:
    from transformers import Qwen2_5_VLConfig

    tokenizer = tiny_processor().tokenizer
    ids = {
        name: int(tokenizer.convert_tokens_to_ids(f"<|{name}|>"))
        for name in ("vision_start", "vision_end", "image_pad", "video_pad", "im_end", "endoftext")
    }
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
            "bos_token_id": ids["endoftext"],
            "eos_token_id": ids["im_end"],
            "pad_token_id": ids["endoftext"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )


def tiny_model(layers: int = LAYERS, seed: int = 0) -> Any:
    """fp32 on the CPU; weights are spread wide, so that a wrong token or position shows in the answer."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(tiny_config(layers)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.3)
    return model


def save_tiny(directory: Path, layers: int = LAYERS, seed: int = 0) -> Path:
    """Write model and processor as a checkpoint directory."""
    tiny_model(layers, seed).save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory
