# SPDX-License-Identifier: Apache-2.0
"""Questions and clips to model inputs: as the library does it, with the right times, pixels and padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")

from qwen25vl.tiny import BOX, build_processor, tiny_model, tiny_processor

from tokenprune.errors import InvalidValueError, VideoError
from tokenprune_qwen25vl.chat import Conversation, model_inputs
from tokenprune_qwen25vl.video import VideoClip


def make_clip(count: int = 8, height: int = 56, width: int = 84, fps: float = 2.0, seed: int = 0) -> VideoClip:
    frames = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return VideoClip.from_frames(frames, fps)


def text_of(inputs: dict[str, torch.Tensor], row: int = 0) -> str:
    kept = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
    return tiny_processor().tokenizer.decode(kept)


def test_the_same_as_the_librarys_own_way_from_messages_to_tokens() -> None:
    clip, question = make_clip(), "What moves?"
    mine = model_inputs(tiny_processor(), [Conversation(question, (clip,), system="Be brief.")])
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "video", "video": clip.frames}, {"type": "text", "text": question}]},
    ]
    from transformers.video_utils import VideoMetadata

    metadata = VideoMetadata(total_num_frames=8, fps=2.0, width=84, height=56, frames_indices=list(range(8)))
    theirs = tiny_processor().apply_chat_template(
        messages,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"do_sample_frames": False, "cap_pixels_per_frame": True, "video_metadata": [metadata]},
    )
    assert {"input_ids", "attention_mask", "mm_token_type_ids", "pixel_values_videos", "video_grid_thw"} <= set(mine)
    for name in mine:
        assert torch.equal(mine[name], torch.as_tensor(theirs[name])), name


@pytest.mark.parametrize(
    ("total", "fps", "indices", "seconds"),
    [
        (8, 2.0, range(8), 1.0),
        (100, 25.0, range(0, 100, 25), 2.0),  # four frames of a four-second video: one a second, two in a token
        (100, 50.0, range(0, 100, 10), 0.4),
        (1, 25.0, range(1), 0.08),
    ],
)
def test_seconds_per_visual_token_follow_the_sampled_frames(
    total: int, fps: float, indices: range, seconds: float
) -> None:
    frames = np.zeros((len(indices), 28, 28, 3), dtype=np.uint8)
    inputs = model_inputs(tiny_processor(), [Conversation("?", (VideoClip(frames, tuple(indices), total, fps),))])
    assert inputs["second_per_grid_ts"].tolist() == pytest.approx([seconds])


def test_one_frame_is_shown_twice() -> None:
    inputs = model_inputs(tiny_processor(), [Conversation("?", (make_clip(1, 28, 28),))])
    assert inputs["video_grid_thw"].tolist() == [[1, 2, 2]]
    first, second = inputs["pixel_values_videos"].reshape(4, 3, 2, 14, 14).unbind(2)
    assert torch.equal(first, second)


def test_several_questions_about_one_video_are_padded_on_the_left() -> None:
    clip = make_clip()
    inputs = model_inputs(
        tiny_processor(), [Conversation(text, (clip,)) for text in ("Why?", "What moves to the left?")]
    )
    short, long = inputs["attention_mask"]
    assert long.all()
    padding = int((short == 0).sum())
    assert padding == len("What moves to the left?") - len("Why?")
    assert not short[:padding].any()
    assert short[padding:].all()
    alone = model_inputs(tiny_processor(), [Conversation("Why?", (clip,))])
    assert torch.equal(inputs["input_ids"][0, padding:], alone["input_ids"][0])
    assert torch.equal(inputs["mm_token_type_ids"][0, padding:], alone["mm_token_type_ids"][0])
    half = len(inputs["pixel_values_videos"]) // 2
    assert torch.equal(inputs["pixel_values_videos"][:half], inputs["pixel_values_videos"][half:])


def test_a_batch_answers_like_its_rows_alone() -> None:
    model, processor = tiny_model(), tiny_processor()
    conversations = [Conversation("Why?", (make_clip(seed=1),)), Conversation("What is this?", (make_clip(4, seed=2),))]
    together = model_inputs(processor, conversations)
    out = model.generate(**together, max_new_tokens=6, do_sample=False)[:, together["input_ids"].shape[1] :]
    for row, conversation in enumerate(conversations):
        alone = model_inputs(processor, [conversation])
        expected = model.generate(**alone, max_new_tokens=6, do_sample=False)[0, alone["input_ids"].shape[1] :]
        assert out[row, : len(expected)].tolist() == expected.tolist()


def test_what_a_prompt_says() -> None:
    clips = (make_clip(2, 28, 28), make_clip(2, 28, 28, seed=1))
    pad = "<|vision_start|><|video_pad|><|vision_end|>"
    inputs = model_inputs(tiny_processor(), [Conversation("And now?", clips, earlier=(("Who?", "A hare."),))])
    assert text_of(inputs) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{pad}{pad}Who?<|im_end|>\n<|im_start|>assistant\nA hare.<|im_end|>\n"
        "<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_prompt_takes_the_place_of_the_templates_own() -> None:
    assert text_of(model_inputs(tiny_processor(), [Conversation("Hi", (), system="Be brief.")])).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi"
    )


def test_text_alone_needs_no_video() -> None:
    inputs = model_inputs(tiny_processor(), [Conversation("Hello", ())])
    assert "pixel_values_videos" not in inputs


@pytest.mark.parametrize("max_pixels", [BOX * BOX, 4 * BOX * BOX, 5000])
def test_a_frame_keeps_within_max_pixels(max_pixels: int) -> None:
    processor = tiny_processor(64 * BOX * BOX)
    free = model_inputs(processor, [Conversation("?", (make_clip(4, 224, 224),))])
    tight = model_inputs(processor, [Conversation("?", (make_clip(4, 224, 224),))], max_pixels)
    assert free["video_grid_thw"].tolist() == [[2, 16, 16]]
    _, height, width = (int(n) for n in tight["video_grid_thw"][0])
    assert height * width * 14 * 14 <= max_pixels
    assert (height + 2) * (width + 2) * 14 * 14 > max_pixels  # and fills it: one box more a side would not fit


def test_a_long_video_shares_out_the_processors_tokens() -> None:
    processor = build_processor(64 * BOX * BOX)
    processor.video_processor.max_video_tokens = 100
    inputs = model_inputs(processor, [Conversation("?", (make_clip(16, 224, 224),))])
    tokens = int(inputs["video_grid_thw"].prod()) // 4
    assert tokens <= 90
    assert tokens == int((inputs["input_ids"] == processor.video_token_id).sum())


def test_frames_are_capped_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model_inputs(tiny_processor(), [Conversation("?", (make_clip(),))])
    assert "cap_pixels_per_frame" not in caplog.text


@pytest.mark.parametrize("value", [783, 0, -1, 1000.5, True])
def test_a_budget_below_one_visual_token_is_refused(value: int) -> None:
    with pytest.raises(InvalidValueError, match="at least 784"):
        model_inputs(tiny_processor(), [Conversation("?", (make_clip(),))], value)


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(question: str) -> None:
    with pytest.raises(InvalidValueError, match="not empty"):
        model_inputs(tiny_processor(), [Conversation(question, (make_clip(),))])


@pytest.mark.parametrize("token", ["<|video_pad|>", "<|image_pad|>", "<|vision_start|>", "<|im_end|>", "<|endoftext|>"])
def test_control_tokens_in_a_text_are_refused(token: str) -> None:
    clip = make_clip()
    for conversation in (
        Conversation(f"What is {token}?", (clip,)),
        Conversation("What?", (clip,), system=f"{token} Be brief."),
        Conversation("What?", (clip,), earlier=(("Who?", f"A {token}"),)),
    ):
        with pytest.raises(InvalidValueError, match="control token"):
            model_inputs(tiny_processor(), [conversation])


def test_no_conversation_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one"):
        model_inputs(tiny_processor(), [])


def test_a_thread_of_pixels_is_refused() -> None:
    with pytest.raises(VideoError, match="aspect ratio"):
        model_inputs(tiny_processor(), [Conversation("?", (make_clip(2, 2, 600),))])


def test_inputs_are_not_changed() -> None:
    clip = make_clip()
    before = clip.frames.copy()
    model_inputs(tiny_processor(), [Conversation("?", (clip,))])
    assert np.array_equal(before, clip.frames)
