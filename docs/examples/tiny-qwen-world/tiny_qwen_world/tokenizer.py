# SPDX-License-Identifier: Apache-2.0
"""A Qwen tokenizer for the world: bytes, so that any text encodes, and merges that make its words single tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tiny_qwen_world.outside import NOTE, outside_question
from tokenprune.bench.world.palette import COLOURS, DIRECTIONS, LETTERS, SHAPES, SIDES
from tokenprune.bench.world.questions import KINDS, ask
from tokenprune.bench.world.scene import sample_scene

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
WORDS = 1016
"""Entries besides the special tokens, the 256 bytes among them."""


def _corpus() -> Iterator[str]:
    """World questions and answers first and most, then the words of the chat format and everyday questions."""
    rng = np.random.default_rng(5)
    answers = (*COLOURS, *SHAPES, *DIRECTIONS, *SIDES, *LETTERS, "yes", "no", "1", "2", "3", "4")
    for seed in range(1500):
        scene = sample_scene(seed)
        for kind in KINDS:
            question = ask(scene, kind, rng)
            if question is not None:
                yield question.text
                yield question.answer
    for _ in range(150):
        yield from answers
        yield from (" " + answer for answer in answers)
        yield from ("system\n", "You are a helpful assistant.", "user\n", "assistant\n", NOTE)
    for _ in range(6000):
        yield outside_question(rng)


def build_tokenizer() -> Qwen2Tokenizer:
    """The tokenizer of the shipped checkpoint: the same on every call."""
    from tokenizers import trainers
    from transformers import Qwen2Tokenizer

    blank = Qwen2Tokenizer(vocab={}, merges=[])
    alphabet = [chr(c) for c in _byte_characters()]
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, initial_alphabet=alphabet, min_frequency=5, show_progress=False, special_tokens=[]
    )
    raw = blank.backend_tokenizer
    raw.train_from_iterator(_corpus(), trainer)
    model = json.loads(raw.to_str())["model"]
    vocab: dict[str, int] = {k: v for k, v in model["vocab"].items() if k not in SPECIAL}
    order = sorted(vocab, key=lambda k: vocab[k])
    return Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(order)},
        merges=[tuple(merge) for merge in model["merges"]],  # pyright: ignore[reportArgumentType]
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL[1:]),
        model_max_length=32768,
    )


def _byte_characters() -> list[int]:
    """The 256 characters by which byte-level BPE writes the bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return shown + [256 + i for i in range(256 - len(shown))]
