# SPDX-License-Identifier: Apache-2.0
"""Tiny random checkpoints of model families with the library's own processors, saved to disk.

The tokenizer knows the 256 bytes, a few words and the family's control tokens, so nothing has to be trained or
downloaded; everything else is what a released checkpoint of the family brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf

Made = tuple[Any, Any]
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SIDE = 56
"""Pixels along a side of what towers of one size see."""
SQUARE = {"height": SIDE, "width": SIDE}
PINPOINTS = [[SIDE, SIDE], [SIDE, 2 * SIDE]]
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}


def tokenizer(control: Sequence[str] | Mapping[str, str]) -> Any:
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(code) for code in shown + [256 + i for i in range(256 - len(shown))]]
    made = hf.Qwen2Tokenizer(
        vocab={letter: i for i, letter in enumerate(alphabet)},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=dict(control) if isinstance(control, Mapping) else ["<|im_start|>", *control],
        model_max_length=32768,
    )
    made.add_tokens(["Frame", " from ", " seconds"])  # words of real vocabularies, which tell frames from pictures
    return made


def template(video: str, image: str) -> str:
    return (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'video' %}" + video + "{% elif part['type'] == 'image' %}" + image + "{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def text(made: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(made),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": 0,
        "eos_token_id": int(made.convert_tokens_to_ids("<|im_end|>")),
        "pad_token_id": int(made.convert_tokens_to_ids("<|endoftext|>")),
        **more,
    }


def tower(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 14,
        **more,
    }


def pixels(token: int, frames: int = 1) -> dict[str, int]:
    """Bounds of six visual tokens a frame."""
    return {"shortest_edge": token * token, "longest_edge": 6 * token * token * frames}


def vision_ids(made: Any) -> dict[str, int]:
    names = ("vision_start", "vision_end", "image", "video")
    return {f"{name}_token_id": int(made.convert_tokens_to_ids(token)) for name, token in zip(names, VISION)}


def qwen2_vl() -> Made:
    words = tokenizer(VISION)
    processor = hf.Qwen2VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(size=pixels(28)),
        tokenizer=words,
        video_processor=hf.Qwen2VLVideoProcessor(size=pixels(28)),
        chat_template=template(VISION[0] + VISION[3] + VISION[1], VISION[0] + VISION[2] + VISION[1]),
    )
    config = hf.Qwen2VLConfig(
        text_config=text(words, rope_parameters=MROPE),
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2},
        **vision_ids(words),
    )
    return hf.Qwen2VLForConditionalGeneration(config), processor


def qwen3_vl() -> Made:
    words = tokenizer(VISION)
    processor = hf.Qwen3VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(size=pixels(32), patch_size=16),
        tokenizer=words,
        video_processor=hf.Qwen3VLVideoProcessor(size=pixels(32, frames=8)),
        chat_template=template(VISION[0] + VISION[3] + VISION[1], VISION[0] + VISION[2] + VISION[1]),
    )
    config = hf.Qwen3VLConfig(
        text_config=text(words, head_dim=8, rope_parameters={**MROPE, "mrope_interleaved": True}),
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0, 1, 2],
            "num_position_embeddings": 64,
        },
        **vision_ids(words),
    )
    return hf.Qwen3VLForConditionalGeneration(config), processor


def llava_onevision() -> Made:
    words = tokenizer(("<image>", "<video>"))
    processor = hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=PINPOINTS),
        tokenizer=words,
        video_processor=hf.LlavaOnevisionVideoProcessor(size=SQUARE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<video>\n", "<image>\n"),
    )
    config = hf.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **text(words)},
        vision_config=tower(model_type="siglip_vision_model", image_size=SIDE, vision_use_head=False),
        image_token_id=int(words.convert_tokens_to_ids("<image>")),
        video_token_id=int(words.convert_tokens_to_ids("<video>")),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def llava_next_video() -> Made:
    words = tokenizer(("<image>", "<video>"))
    shortest = {"shortest_edge": SIDE}
    processor = hf.LlavaNextVideoProcessor(
        image_processor=hf.LlavaNextImageProcessor(size=shortest, crop_size=SQUARE, image_grid_pinpoints=PINPOINTS),
        tokenizer=words,
        video_processor=hf.LlavaNextVideoVideoProcessor(size=shortest, crop_size=SQUARE),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<video>\n", "<image>\n"),
    )
    config = hf.LlavaNextVideoConfig(
        text_config={"model_type": "llama", **text(words)},
        vision_config=tower(model_type="clip_vision_model", image_size=SIDE),
        image_token_id=int(words.convert_tokens_to_ids("<image>")),
        video_token_id=int(words.convert_tokens_to_ids("<video>")),
        image_grid_pinpoints=PINPOINTS,
    )
    return hf.LlavaNextVideoForConditionalGeneration(config), processor


def internvl() -> Made:
    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    words = tokenizer(dict(zip(names, ("<img>", "</img>", "<IMG_CONTEXT>", "<video>"))))
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True),
        tokenizer=words,
        video_processor=hf.InternVLVideoProcessor(size=SQUARE),
        image_seq_length=4,
        chat_template=template("<video>\n", "<IMG_CONTEXT>\n"),
    )
    config = hf.InternVLConfig(
        text_config={"model_type": "qwen2", **text(words)},
        vision_config=tower(image_size=[SIDE, SIDE], patch_size=[14, 14]),
        image_token_id=int(words.convert_tokens_to_ids("<IMG_CONTEXT>")),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    return hf.InternVLForConditionalGeneration(config), processor


def smolvlm() -> Made:
    names = ("fake_image_token", "image_token", "global_image_token", "end_of_utterance_token")
    given = ("<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>")
    words = tokenizer(dict(zip(names, given)))
    # As in the released models the tokens of a frame, 16, are a multiple of a patch's side, which a release relies on.
    side, patch = 64, 8
    longest = {"longest_edge": side}
    processor = hf.SmolVLMProcessor(
        image_processor=hf.SmolVLMImageProcessor(size=longest, max_image_size=longest),
        tokenizer=words,
        video_processor=hf.SmolVLMVideoProcessor(
            size=longest, max_image_size=longest, video_sampling={"fps": 1, "max_frames": 64, "video_size": longest}
        ),
        image_seq_len=16,
        chat_template=template("<video>", "<image>"),
    )
    config = hf.SmolVLMConfig(
        text_config={"model_type": "llama", **text(words)},
        vision_config=tower(model_type="smolvlm_vision", image_size=side, patch_size=patch),
        image_token_id=int(words.convert_tokens_to_ids("<image>")),
        pad_token_id=int(words.convert_tokens_to_ids("<|endoftext|>")),
        scale_factor=2,
    )
    return hf.SmolVLMForConditionalGeneration(config), processor


def video_llama_3() -> Made:
    words = tokenizer(VISION)
    processor = hf.VideoLlama3Processor(
        image_processor=hf.VideoLlama3ImageProcessor(size=pixels(28)),
        tokenizer=words,
        video_processor=hf.VideoLlama3VideoProcessor(size=pixels(28, frames=8), use_token_compression=False),
        chat_template=template(VISION[3], VISION[2]),
    )
    ids = vision_ids(words)
    config = hf.VideoLlama3Config(
        text_config={"model_type": "qwen2", **text(words)},
        vision_config=tower(),
        image_token_id=ids["image_token_id"],
        video_token_id=ids["video_token_id"],
    )
    return hf.VideoLlama3ForConditionalGeneration(config), processor


def glm4v() -> Made:
    around = [f"<|{edge}_of_{kind}|>" for kind in ("image", "video") for edge in ("begin", "end")]
    words = tokenizer(["<|image|>", "<|video|>", *around])
    processor = hf.Glm4vProcessor(
        image_processor=hf.Glm4vImageProcessor(size=pixels(28, frames=8)),
        tokenizer=words,
        video_processor=hf.Glm4vVideoProcessor(size=pixels(28, frames=8)),
        chat_template=template(f"{around[2]}<|video|>{around[3]}", f"{around[0]}<|image|>{around[1]}"),
    )
    names = ("image_token_id", "video_token_id", "image_start_token_id", "image_end_token_id")
    names += ("video_start_token_id", "video_end_token_id")
    ids = {
        name: int(words.convert_tokens_to_ids(token)) for name, token in zip(names, ("<|image|>", "<|video|>", *around))
    }
    config = hf.Glm4vConfig(
        text_config=text(words, rope_parameters=MROPE),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "image_size": 112,
        },
        **ids,
    )
    return hf.Glm4vForConditionalGeneration(config), processor


CHECKPOINTS: Mapping[str, Callable[[], Made]] = {
    "qwen2_vl": qwen2_vl,
    "qwen3_vl": qwen3_vl,
    "llava_onevision": llava_onevision,
    "llava_next_video": llava_next_video,
    "internvl": internvl,
    "smolvlm": smolvlm,
    "video_llama_3": video_llama_3,
    "glm4v": glm4v,
}


def save(name: str, directory: Path) -> Path:
    """Save a tiny model of this family, weights spread wide so that a wrong token shows in the answer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = CHECKPOINTS[name]()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.3)
    model.eval().save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
