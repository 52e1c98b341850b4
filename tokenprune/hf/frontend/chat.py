# SPDX-License-Identifier: Apache-2.0
"""Questions and clips to the inputs of the model, through the checkpoint's own chat template and processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tokenprune.errors import InvalidValueError
from tokenprune.hf.frontend.pixels import PixelOptions, makes_patches, processor_errors
from tokenprune.hf.frontend.video import ProcessorFit, VideoClip, video_metadata

BY_PROMPT = ("SmolVLMProcessor",)
"""Processors that take a list of clips for each prompt; earlier releases of the library know no other form of it."""


@dataclass(frozen=True, eq=False)
class Conversation:
    """One prompt: clips and a first question about them, and what was said since.

    >>> said = Conversation("And then?", (), earlier=(("What moves?", "A circle."),)).messages()
    >>> [message["role"] for message in said]
    ['user', 'assistant', 'user']

    Args:
        question: what is asked now.
        clips: shown before the first question.
        system: system prompt; None leaves the template's own.
        earlier: (question, answer) pairs that came before `question`, oldest first.
    """

    question: str
    clips: tuple[VideoClip, ...]
    system: str | None = None
    earlier: tuple[tuple[str, str], ...] = ()

    def messages(self) -> list[dict[str, Any]]:
        """The conversation as a chat template takes it; videos stand in it as placeholders."""
        messages: list[dict[str, Any]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": [_text(self.system)]})
        for question, answer in self.earlier:
            messages.append({"role": "user", "content": [_text(question)]})
            messages.append({"role": "assistant", "content": [_text(answer)]})
        messages.append({"role": "user", "content": [_text(self.question)]})
        first = next(message for message in messages if message["role"] == "user")
        first["content"] = [{"type": "video"} for _ in self.clips] + first["content"]
        return messages

    def _texts(self) -> list[str]:
        return [text for pair in self.earlier for text in pair] + [self.question, self.system or ""]


def model_inputs(
    processor: Any, conversations: Sequence[Conversation], max_pixels: int | None = None
) -> dict[str, Tensor]:
    """What ``model.generate`` takes for a batch of conversations, on the CPU, shorter rows padded on the left.

    Returns ``input_ids`` and ``attention_mask`` ``(B, L)``, and what else the processor makes: with Qwen's
    ``mm_token_type_ids`` ``(B, L)`` and, where there are videos, ``pixel_values_videos``, ``video_grid_thw`` and
    ``second_per_grid_ts`` over all videos in order.

    >>> asked = [Conversation("What is a video?", ()), Conversation("Why?", ())]
    >>> len(model_inputs(processor, asked)["input_ids"])
    2

    Args:
        processor: the checkpoint's own; its pixels a frame and visual tokens a video apply, and frames are capped the
            way Qwen's own preprocessing does it (``cap_pixels_per_frame``) unless the processor says otherwise.
        conversations: one a row.
        max_pixels: pixels of a frame after resizing, at most; None is what the processor says.

    Raises:
        InvalidValueError: no conversation, a processor without a chat template, an empty question, control tokens such
            as ``<|video_pad|>`` in a text, or `max_pixels` below one visual token, or for a processor that takes no
            bound.
        VideoError: frames that cannot be resized (an aspect ratio of 200 and more), or too few of them.
    """
    if not conversations:
        raise InvalidValueError("at least one conversation is needed")
    if not processor.chat_template:
        raise InvalidValueError(
            f"the checkpoint's {type(processor).__name__} has no chat template, so no question can be put to it; take "
            "the instruct form of the checkpoint, or set processor.chat_template"
        )
    control = sorted(str(token) for token in processor.tokenizer.all_special_tokens)
    for conversation in conversations:
        if not isinstance(conversation.question, str) or not conversation.question.strip():
            raise InvalidValueError("question must be a text and not empty")
        for text in conversation._texts():
            found = [token for token in control if token in text]
            if found:
                raise InvalidValueError(f"a question must not contain the control token {found[0]}")
    prompts = [
        processor.apply_chat_template(conversation.messages(), tokenize=False, add_generation_prompt=True)
        for conversation in conversations
    ]
    clips = [clip for conversation in conversations for clip in conversation.clips]
    options: dict[str, Any] = {}
    if clips:
        options = {
            "videos": _videos(processor, conversations),
            "video_metadata": [video_metadata(clip) for clip in clips],
            "do_sample_frames": False,
            **PixelOptions(processor.video_processor, max_pixels).for_clips([len(clip.frames) for clip in clips]),
        }
    with processor_errors():
        inputs = processor(text=prompts, padding=True, padding_side="left", return_tensors="pt", **options)
    return {name: _tensor(value) for name, value in inputs.items() if name != "video_metadata"}


def _videos(processor: Any, conversations: Sequence[Conversation]) -> list[Any]:
    """The frames of all clips in order; for some processors those of each prompt as a list of their own."""
    nested = [[clip.frames for clip in conversation.clips] for conversation in conversations]
    if type(processor).__name__ in BY_PROMPT:
        return nested
    return [frames for of_prompt in nested for frames in of_prompt]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def reading_fit(processor: Any, max_pixels: int | None = None) -> ProcessorFit | None:
    """What :func:`tokenprune.hf.frontend.video.load_clip` takes to hold frames no larger than the model will see them.

    None for a processor that shows all frames in one size: frames are then held as they are in the file.

    Args:
        processor: the checkpoint's own.
        max_pixels: as :func:`model_inputs` will be given it.
    """
    options = PixelOptions(processor.video_processor, max_pixels)
    return ProcessorFit(options) if makes_patches(processor.video_processor) else None


def _tensor(value: Any) -> Tensor:
    import torch

    return value if isinstance(value, Tensor) else torch.as_tensor(value)
