# SPDX-License-Identifier: Apache-2.0
"""How well a checkpoint answers held-out questions, and how well one could without the video."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tiny_qwen_world.data import OUTSIDE
from tiny_qwen_world.forward import TrainingForward, to_patches
from tiny_qwen_world.outside import NOTE, outside_question
from tiny_qwen_world.packing import IGNORE, Layout, build_layout, pack
from tokenprune.bench.world.clip import HELD_OUT, questions_of
from tokenprune.bench.world.questions import KINDS, Question
from tokenprune.bench.world.render import render
from tokenprune.bench.world.scene import sample_scene
from tokenprune.bench.world.video import through_mp4

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration


@dataclass(frozen=True)
class Score:
    """Right answers of one kind."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        return self.right / self.asked if self.asked else float("nan")


Scores = dict[str, Score]


@dataclass(frozen=True)
class Asked:
    """Held-out questions about one clip."""

    seed: int
    questions: tuple[Question, ...]


def held_out(per_kind: int, first: int = HELD_OUT) -> list[Asked]:
    """Clips from seed `first` on, with `per_kind` questions of every kind between them."""
    left = dict.fromkeys(KINDS, per_kind)
    found: list[Asked] = []
    seed = first
    while any(left.values()):
        asked = tuple(q for q in questions_of(sample_scene(seed)) if left[q.kind] > 0)
        for question in asked:
            left[question.kind] -= 1
        if asked:
            found.append(Asked(seed, asked))
        seed += 1
    return found


@torch.no_grad()
def measure(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    clips: list[Asked],
    keep: float = 1.0,
    shift: int = 0,
    mp4: bool = False,
) -> Scores:
    """Share of questions whose answer greedy decoding gives, whole and with its end.

    Args:
        model: the checkpoint.
        tokenizer: its tokenizer.
        clips: of `held_out`.
        keep: share of the visual tokens that reach the decoder, drawn at random for each clip.
        shift: answers from the video of the clip so many places on: what is known without the right video.
        mp4: the frames go through an .mp4 file first.
    """
    model.eval()
    layout = build_layout(tokenizer)
    forward = TrainingForward(model, layout)
    marks: dict[str, list[bool]] = defaultdict(list)
    for index, asked in enumerate(clips):
        shown = clips[(index + shift) % len(clips)].seed
        frames = render(sample_scene(shown))
        visual = forward.see(to_patches(torch.from_numpy(through_mp4(frames) if mp4 else frames)[None]))[0]
        rng = np.random.default_rng([31, asked.seed])
        kept = np.sort(rng.permutation(len(visual))[: round(keep * len(visual))])
        for question, right in zip(
            asked.questions, _ask(model, tokenizer, layout, visual, torch.from_numpy(kept), asked)
        ):
            marks[question.kind].append(right)
    return {kind: Score(sum(marks[kind]), len(marks[kind])) for kind in (*KINDS, OUTSIDE) if kind in marks}


def _ask(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    visual: torch.Tensor,
    kept: torch.Tensor,
    asked: Asked,
) -> list[bool]:
    """Asks each question alone, through the library's own decoder: whether it says the answer and stops."""
    packed = pack(tokenizer, [[(q.text, q.answer) for q in asked.questions]])
    ids = packed.ids[0]
    count, length = ids.shape
    base = len(layout.before)
    text = model.model.language_model
    shared = torch.cat([text.embed_tokens(layout.before), visual[kept]])
    embeds = torch.cat([shared.expand(count, -1, -1), text.embed_tokens(ids)], dim=1)
    places = torch.cat([layout.positions[:, :base], layout.positions[:, base + kept]], dim=1)
    after = (layout.next_position + torch.arange(length)).expand(3, -1)
    positions = torch.cat([places, after], dim=1)[:, None].expand(-1, count, -1)
    states = text(inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state
    said = model.lm_head(states[:, shared.shape[0] :]).argmax(-1)
    return ((said == packed.targets[0]) | (packed.targets[0] == IGNORE)).all(-1).tolist()


def outside(count: int, seed: int = 37) -> list[Asked]:
    """Held-out clips, each with questions from outside the world."""
    rng = np.random.default_rng(seed)
    return [
        Asked(HELD_OUT + i, tuple(Question(OUTSIDE, outside_question(rng), NOTE, (NOTE,)) for _ in range(5)))
        for i in range(-(-count // 5))
    ]


def guess_from_text(clips: list[Asked], learn_from: int = 20000) -> Scores:
    """The best that can be done without a video: for each wording the answer it most often has.

    Args:
        clips: of `held_out`.
        learn_from: scenes (of training seeds) that the guesser has counted.
    """
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for seed in range(learn_from):
        for question in questions_of(sample_scene(seed)):
            seen[question.text][question.answer] += 1
            seen[question.kind][question.answer] += 1
    marks: dict[str, list[bool]] = defaultdict(list)
    for asked in clips:
        for question in asked.questions:
            counts = seen.get(question.text) or seen[question.kind]
            marks[question.kind].append(counts.most_common(1)[0][0] == question.answer)
    return {kind: Score(sum(marks[kind]), len(marks[kind])) for kind in KINDS}


def overall(scores: Scores) -> float:
    """Mean over the kinds."""
    return float(np.mean([score.share for score in scores.values()]))


__all__ = ["Asked", "Score", "Scores", "guess_from_text", "held_out", "measure", "outside", "overall"]
