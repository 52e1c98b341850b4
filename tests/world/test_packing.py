# SPDX-License-Identifier: Apache-2.0
"""A packed question gets the logits of the same question asked alone, through processor and library."""

from __future__ import annotations

import pytest
import torch
from tiny_qwen_world.build import Built, build
from tiny_qwen_world.forward import HEADS, TOLD_LAYER, additive, to_patches
from tiny_qwen_world.packing import IGNORE, pack, row_mask

from tokenprune.bench.world import sample


@pytest.fixture(scope="module")
def built() -> Built:
    built = build(0, torch.device("cpu"))
    built.model.eval()
    return built


def alone(built: Built, seed: int, question: str) -> torch.Tensor:
    from transformers.video_utils import VideoMetadata

    message = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    text = built.processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    metadata = VideoMetadata(total_num_frames=16, fps=2.0, frames_indices=list(range(16)))
    inputs = built.processor(text=[text], videos=[sample(seed).frames], video_metadata=[metadata], return_tensors="pt")
    with torch.no_grad():
        return built.model(**inputs).logits[0, -1]


def test_packed_equals_alone(built: Built) -> None:
    seeds = (3, 4)
    turns = [[(q.text, q.answer) for q in sample(seed).questions[:4]] for seed in seeds]
    packed = pack(built.processor.tokenizer, turns)
    frames = torch.stack([torch.from_numpy(sample(seed).frames) for seed in seeds])
    shared = built.forward.layout.positions.shape[1]
    with torch.no_grad():
        visual = built.forward.see(to_patches(frames))
        mask = additive(row_mask(4, packed.ids.shape[2], shared))
        every = torch.arange(visual.shape[1]).expand(2, -1)
        out = built.forward(visual, every, packed.ids, mask, packed.named, packed.first)
        for b, seed in enumerate(seeds):
            for n, (question, _) in enumerate(turns[b]):
                mine = built.model.lm_head(out.rows[b, n, packed.first[b, n]])
                theirs = alone(built, seed, question)
                assert theirs.abs().max() > 0.1
                torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_only_answers_are_told(built: Built) -> None:
    tokenizer = built.processor.tokenizer
    packed = pack(tokenizer, [[("How many flashes are there?", "3"), ("Why?", "I only know.")]])
    told = packed.targets[0, 0][packed.targets[0, 0] != IGNORE]
    assert tokenizer.decode(told) == "3<|im_end|>"
    assert tokenizer.decode(packed.targets[0, 1][packed.targets[0, 1] != IGNORE]) == "I only know.<|im_end|>"
    assert packed.weights[0, 0].max() == 1.0
    assert packed.targets[0, 0, packed.first[0, 0]] == tokenizer("3")["input_ids"][0]


def test_it_looks_with_the_attention_of_the_library(built: Built) -> None:
    """What training steers is what an attention map of the library shows."""
    seed, layer = 3, TOLD_LAYER
    turns = [[(q.text, q.answer) for q in sample(seed).questions[:2]]]
    packed = pack(built.processor.tokenizer, turns)
    shared = built.forward.layout.positions.shape[1]
    model = built.model
    kept: dict[str, torch.Tensor] = {}

    def tap(_: object, __: object, kwargs: dict[str, object], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        kept["weights"] = output[1]

    with torch.no_grad():
        visual = built.forward.see(to_patches(torch.from_numpy(sample(seed).frames)[None]))
        mask = additive(row_mask(2, packed.ids.shape[2], shared))
        every = torch.arange(visual.shape[1]).expand(1, -1)
        out = built.forward(visual, every, packed.ids, mask, packed.named, packed.first)
        handle = model.model.language_model.layers[layer].self_attn.register_forward_hook(tap, with_kwargs=True)
        model.set_attn_implementation("eager")
        try:
            for n in range(2):
                alone(built, seed, turns[0][n][0])
                base = shared - visual.shape[1]
                theirs = kept["weights"][0, :HEADS, -1, base:shared]
                torch.testing.assert_close(out.told[0, :, n].exp(), theirs, atol=1e-5, rtol=1e-3)
        finally:
            handle.remove()
            model.set_attn_implementation("sdpa")


def test_a_row_that_does_not_fit_is_refused(built: Built) -> None:
    with pytest.raises(ValueError, match="tokens, a row has 8"):
        pack(built.processor.tokenizer, [[("How many flashes are there?", "3")]], length=8)


def test_rows_read_the_shared_part_and_themselves() -> None:
    mask = row_mask(2, 3, 4)
    for row in range(6):
        for key in range(10):
            own = key >= 4 and (key - 4) // 3 == row // 3 and key - 4 <= row
            assert bool(mask[row, key]) == (key < 4 or own)
