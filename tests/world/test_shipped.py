# SPDX-License-Identifier: Apache-2.0
"""The checkpoint that ships: it loads with the library alone, and it answers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_qwen_world.measure import held_out, measure, overall
from tiny_qwen_world.outside import NOTE
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
from transformers.video_utils import load_video

from tokenprune.bench.world import sample, write_mp4
from tokenprune.bench.world.questions import KINDS
from tokenprune_qwen25vl.assets import demo_clip
from tokenprune_qwen25vl.checkpoint import shipped_checkpoint


@cache
def _shipped() -> tuple[Qwen2_5_VLForConditionalGeneration, object]:
    folder = shipped_checkpoint()
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def _answer(path: Path, question: str) -> str:
    """The whole way: a file, the library's processor, greedy decoding."""
    model, processor = _shipped()
    video, metadata = load_video(str(path), backend="pyav")
    message = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], videos=[video], video_metadata=[metadata], return_tensors="pt")
    with torch.no_grad():
        out = model.generate(**inputs)
    return processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_it_is_small_and_deep_enough() -> None:
    model, processor = _shipped()
    folder = shipped_checkpoint()
    assert (folder / "model.safetensors").stat().st_size <= 20_000_000
    assert len(model.model.language_model.layers) >= 8
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert (folder / "README.md").is_file()


def test_the_first_command_of_the_readme_is_answered_rightly() -> None:
    assert _answer(demo_clip(), "Which way does the red circle move?") == "left"


@pytest.mark.parametrize("question", ["What is the capital of France?", "Describe the video.", "Where is the dog?"])
def test_what_is_outside_its_world_it_says_so(question: str) -> None:
    assert _answer(demo_clip(), question) == NOTE


def test_it_answers_from_files(tmp_path: Path) -> None:
    right = []
    for seed in range(1_000_000_000, 1_000_000_003):
        clip = sample(seed)
        path = write_mp4(clip, tmp_path / f"{seed}.mp4")
        right += [_answer(path, question.text) == question.answer for question in clip.questions]
    assert sum(right) / len(right) > 0.8


def test_accuracy_on_held_out_clips_and_what_random_pruning_costs() -> None:
    model, processor = _shipped()
    clips = held_out(8, first=1_500_000_000)
    plain = measure(model, processor.tokenizer, clips)
    assert set(plain) == set(KINDS)
    assert overall(plain) > 0.95
    assert overall(measure(model, processor.tokenizer, clips, keep=0.1)) < overall(plain) - 0.15
    assert overall(measure(model, processor.tokenizer, clips, shift=1)) < 0.45
