# SPDX-License-Identifier: Apache-2.0
"""Many questions about one clip, each laid out as if it were asked alone.

All questions share the clip's prompt up to the end of the video. Each then has a row of its own that attends to that
shared part and to itself, at the positions that follow the video: to the model every row is a prompt of one turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tokenprune.bench.world.palette import COLOURS, GRID, SLOTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VISUAL_TOKENS = SLOTS * GRID * GRID
BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
AFTER = "<|vision_end|>"
ASKED = "<|im_end|>\n<|im_start|>assistant\n"
IGNORE = -100


@dataclass(frozen=True)
class Packed:
    """Question rows of a batch of clips: `B` clips, `N` questions each, `S` tokens a row."""

    ids: torch.Tensor
    """`(B, N, S)`, padded on the right."""
    targets: torch.Tensor
    """`(B, N, S)`: at each position the token to predict, or `IGNORE`."""
    weights: torch.Tensor
    """`(B, N, S)`: weight of each target; the first token of a world's answer counts one."""
    first: torch.Tensor
    """`(B, N)`: position that predicts the first token of the answer."""
    named: torch.Tensor
    """`(B, N)`: position of the colour word of the question, or 0 where it names none."""


@dataclass(frozen=True)
class Layout:
    """What every row shares."""

    before: torch.Tensor
    """Ids in front of the video."""
    positions: torch.Tensor
    """M-RoPE positions of the shared part up to the last visual token, `(3, P)`."""
    next_position: int
    """Position of the first token after the video."""


def build_layout(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """The shared part for clips of the world's size, one step of time for each slot."""
    before = torch.tensor(tokenizer(BEFORE)["input_ids"])
    base = len(before)
    text = torch.arange(base).expand(3, -1)
    t, h, w = torch.meshgrid(torch.arange(SLOTS), torch.arange(GRID), torch.arange(GRID), indexing="ij")
    video = torch.stack([t, h, w]).reshape(3, -1) + base
    return Layout(before, torch.cat([text, video], dim=1), base + GRID)


def pack(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Sequence[tuple[str, str]]],
    length: int | None = None,
    long_weight: float = 0.15,
) -> Packed:
    """Lays out questions with their answers.

    Args:
        tokenizer: of the model.
        turns: for each clip its `(question, answer)` pairs, as many for every clip.
        length: tokens of a row; without it, what the longest takes.
        long_weight: weight of the tokens after an answer's first, and of every token of a longer answer.

    Raises:
        ValueError: a row is longer than `length`.
    """
    texts = [(AFTER + question + ASKED, answer + "<|im_end|>") for pairs in turns for question, answer in pairs]
    asked, answered = (tokenizer(list(part))["input_ids"] for part in zip(*texts))
    rows: list[tuple[list[int], list[int]]] = list(zip(asked, answered))
    longest = max(len(q) + len(a) - 1 for q, a in rows)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"a question and its answer take {longest} tokens, a row has {length}")
    pad = int(tokenizer.pad_token_id)  # type: ignore[arg-type]
    ids = torch.full((len(rows), length), pad)
    targets = torch.full((len(rows), length), IGNORE)
    weights = torch.zeros(len(rows), length)
    first = torch.zeros(len(rows), dtype=torch.long)
    named = torch.zeros(len(rows), dtype=torch.long)
    vocabulary = tokenizer.get_vocab()
    colours = {vocabulary["\u0120" + colour] for colour in COLOURS}
    for i, (question, answer) in enumerate(rows):
        whole = torch.tensor(question + answer[:-1])
        start = len(question) - 1
        ids[i, : len(whole)] = whole
        targets[i, start : start + len(answer)] = torch.tensor(answer)
        weights[i, start : start + len(answer)] = long_weight
        if len(answer) == 2:
            weights[i, start] = 1.0
        first[i] = start
        named[i] = next((at for at, token in enumerate(question) if token in colours), 0)
    shape = (len(turns), len(turns[0]), length)
    return Packed(
        ids.view(shape), targets.view(shape), weights.view(shape), first.view(shape[:2]), named.view(shape[:2])
    )


def row_mask(rows: int, length: int, shared: int) -> torch.Tensor:
    """Which keys each token of the rows may read, bool `(rows * length, shared + rows * length)`."""
    own = torch.block_diag(*[torch.ones(length, length, dtype=torch.bool).tril() for _ in range(rows)])
    return torch.cat([torch.ones(rows * length, shared, dtype=torch.bool), own], dim=1)
