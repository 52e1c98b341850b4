# SPDX-License-Identifier: Apache-2.0
"""Questions and clips to the inputs of the model, through the checkpoint's own chat template and processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tokenprune.errors import InvalidValueError, VideoError
from tokenprune.hf.frontend.video import ProcessorFit, VideoClip, video_metadata
from tokenprune.messages import shown

# How far the processor's own rule may exceed its upper bound: a frame is given at least 1.05 times the lower one.
_SHARE_FLOOR = 1.05


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

    Returns ``input_ids`` and ``attention_mask`` ``(B, L)``, ``mm_token_type_ids`` ``(B, L)``, and, where there are
    videos, ``pixel_values_videos``, ``video_grid_thw`` and ``second_per_grid_ts`` over all videos in order.

    >>> asked = [Conversation("What is a video?", ()), Conversation("Why?", ())]
    >>> len(model_inputs(processor, asked)["input_ids"])
    2

    Args:
        processor: the checkpoint's own; its pixels a frame and visual tokens a video apply, and frames are capped the
            way Qwen's own preprocessing does it (``cap_pixels_per_frame``) unless the processor says otherwise.
        conversations: one a row.
        max_pixels: pixels of a frame after resizing, at most; None is what the processor says.

    Raises:
        InvalidValueError: no conversation, an empty question, control tokens such as ``<|video_pad|>`` in a text, or
            `max_pixels` below one visual token.
        VideoError: frames that cannot be resized (an aspect ratio of 200 and more).
    """
    if not conversations:
        raise InvalidValueError("at least one conversation is needed")
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
            "videos": [clip.frames for clip in clips],
            "video_metadata": [video_metadata(clip) for clip in clips],
            "do_sample_frames": False,
            **_pixel_options(processor.video_processor, max_pixels),
        }
    try:
        inputs = processor(text=prompts, padding=True, padding_side="left", return_tensors="pt", **options)
    except ValueError as error:
        if "aspect ratio" in str(error):
            raise VideoError(f"a video cannot be resized: {error}") from error
        raise
    return {name: _tensor(value) for name, value in inputs.items() if name != "video_metadata"}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def reading_fit(processor: Any, max_pixels: int | None = None) -> ProcessorFit:
    """What :func:`tokenprune.hf.frontend.video.load_clip` takes to hold frames no larger than the model will see them.

    Args:
        processor: the checkpoint's own.
        max_pixels: as :func:`model_inputs` will be given it.
    """
    return ProcessorFit(processor.video_processor, _pixel_options(processor.video_processor, max_pixels))


def _pixel_options(video_processor: Any, max_pixels: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if getattr(video_processor, "cap_pixels_per_frame", None) is None:
        options["cap_pixels_per_frame"] = True
    if max_pixels is not None:
        token = (video_processor.patch_size * video_processor.merge_size) ** 2
        if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < token:
            raise InvalidValueError(
                f"max_pixels must be a whole number of at least {token}, one visual token, got {shown(max_pixels)}"
            )
        lower = min(int(video_processor.size["shortest_edge"]), int(max_pixels / _SHARE_FLOOR))
        options["size"] = {"shortest_edge": lower, "longest_edge": max_pixels}
    return options


def _tensor(value: Any) -> Tensor:
    import torch

    return value if isinstance(value, Tensor) else torch.as_tensor(value)
