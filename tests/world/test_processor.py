# SPDX-License-Identifier: Apache-2.0
"""Tokenizer and processor: the library's own classes, any text, the world's words in one token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_qwen_world.build import build
from tiny_qwen_world.packing import AFTER, ASKED, BEFORE, build_layout
from tiny_qwen_world.processor import build_processor

from tokenprune.bench.world import sample, write_mp4
from tokenprune.bench.world.palette import COLOURS, DIRECTIONS, LETTERS, SHAPES, SIDES

PROCESSOR = build_processor()
TOKENIZER = PROCESSOR.tokenizer


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_encodes_and_comes_back(text: str) -> None:
    import unicodedata

    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("word", [*COLOURS, *SHAPES, *DIRECTIONS, *SIDES, *LETTERS, "yes", "no", "1", "2", "3", "4"])
def test_an_answer_is_one_token(word: str) -> None:
    assert len(TOKENIZER(word)["input_ids"]) == 1


def test_the_tokenizer_is_the_same_every_time() -> None:
    assert build_processor().tokenizer.get_vocab() == TOKENIZER.get_vocab()


def test_the_chat_template_writes_what_training_packs() -> None:
    message = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "How many?"}]}]
    text = PROCESSOR.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert text == BEFORE + "<|video_pad|>" + AFTER + "How many?" + ASKED
    spoken = PROCESSOR.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], tokenize=False
    )
    assert spoken == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"


def test_round_trip_through_a_folder_with_a_decoded_file(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration
    from transformers.video_utils import load_video

    built = build(0, torch.device("cpu"))
    built.processor.save_pretrained(tmp_path / "m")
    built.model.save_pretrained(tmp_path / "m")
    processor = AutoProcessor.from_pretrained(tmp_path / "m")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "m")
    names = [
        type(p).__name__ for p in (processor, processor.tokenizer, processor.video_processor, processor.image_processor)
    ]
    assert names[0] == "Qwen2_5_VLProcessor"
    assert names[1:3] == ["Qwen2Tokenizer", "Qwen2VLVideoProcessor"]
    assert names[3].startswith("Qwen2VLImageProcessor")
    assert AutoTokenizer.from_pretrained(tmp_path / "m").get_vocab() == TOKENIZER.get_vocab()
    for (name, one), (_, two) in zip(sorted(model.state_dict().items()), sorted(built.model.state_dict().items())):
        assert torch.equal(one, two), name
    video, metadata = load_video(str(write_mp4(sample(2), tmp_path / "clip.mp4")), backend="pyav")
    text = BEFORE + "<|video_pad|>" + AFTER + "Which colour moves?" + ASKED
    inputs = processor(text=[text], videos=[video], video_metadata=[metadata], return_tensors="pt")
    assert inputs["video_grid_thw"].tolist() == [[8, 12, 12]]
    assert [float(s) for s in inputs["second_per_grid_ts"]] == [1.0]
    assert int((inputs["input_ids"] == model.config.video_token_id).sum()) == 288
    layout = build_layout(processor.tokenizer)
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        video_grid_thw=inputs["video_grid_thw"],
        second_per_grid_ts=inputs["second_per_grid_ts"],
    )
    shared = layout.positions.shape[1]
    assert torch.equal(positions[:, 0, :shared], layout.positions)
    assert positions[:, 0, shared].tolist() == [layout.next_position] * 3
    assert len(model.model.language_model.layers) >= 8
