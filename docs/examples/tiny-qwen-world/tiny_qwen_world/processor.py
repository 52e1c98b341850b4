# SPDX-License-Identifier: Apache-2.0
"""The real Qwen2.5-VL processor, set to the size of the world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiny_qwen_world.tokenizer import build_tokenizer
from tokenprune.bench.world.palette import FPS, SIZE

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if loop.first and message['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string %}"
    "{{- message['content'] }}"
    "{%- else %}"
    "{%- for part in message['content'] %}"
    "{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'video' or 'video' in part %}"
    "{{- '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- elif 'text' in part %}"
    "{{- part['text'] }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- endif %}"
)


def build_processor() -> Qwen2_5_VLProcessor:
    """Tokenizer, image and video processor of the shipped checkpoint.

    Any video is resized to about 168 x 168 pixels, 36 visual tokens for two frames; without `fps` or `num_frames`
    no frame is left out.
    """
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    size = {"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=dict(size)),
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(size=dict(size), fps=FPS, cap_pixels_per_frame=True),
        chat_template=CHAT_TEMPLATE,
    )
