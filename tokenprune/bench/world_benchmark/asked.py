# SPDX-License-Identifier: Apache-2.0
"""Which held-out questions are asked, and how answers are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenprune.bench.world.clip import HELD_OUT, questions_of
from tokenprune.bench.world.palette import FRAMES
from tokenprune.bench.world.questions import KINDS, Question
from tokenprune.bench.world.scene import Scene, sample_scene
from tokenprune.budget import split_budget

WRONG, WORD, STRICT = "0", "1", "2"
"""What became of an answer: another word; the right word, but it did not end there; the right word and nothing else."""

SEEDS_APART = 1_000_000
"""Clips between the first of one set of questions and the first of the next."""


@dataclass(frozen=True)
class AskedClip:
    """A held-out clip and what is asked about it."""

    scene: Scene
    questions: tuple[Question, ...]


def ask_world(count: int, seed: int = 0, frames: int = FRAMES) -> list[AskedClip]:
    """``count`` questions, as many of each kind as of any other (or one more), about held-out clips in order of seeds.

    Clips that have nothing to add are passed over.

    Args:
        count: questions in all.
        seed: which set of clips; sets have no clip in common.
        frames: of each clip.
    """
    left = dict(zip(KINDS, split_budget([1] * len(KINDS), [count] * len(KINDS), count)))
    clips: list[AskedClip] = []
    next_seed = HELD_OUT + seed * SEEDS_APART
    while any(left.values()):
        scene = sample_scene(next_seed, frames=frames)
        asked = tuple(question for question in questions_of(scene) if left[question.kind] > 0)
        for question in asked:
            left[question.kind] -= 1
        if asked:
            clips.append(AskedClip(scene, asked))
        next_seed += 1
    return clips


def normalised(answer: str) -> str:
    """An answer as it is compared: case, spacing, and punctuation around it do not count."""
    return " ".join(answer.casefold().split()).strip(" .,;:!?\"'")


def judged(begun: Sequence[str], right: str) -> str:
    """What became of an answer: one of :data:`WRONG`, :data:`WORD`, :data:`STRICT`.

    A model that saw what it was asked about says the right word; one whose attention was thinned out may not stop
    there ("redred"). The first is told by the beginnings of the answer, so that words need no spaces between them.

    >>> judged(["red", "redred"], "red"), judged(["red"], "red"), judged(["The"], "T")
    ('1', '2', '0')

    Args:
        begun: the text of its first token, of its first two, and so on to the whole answer.
        right: the expected answer.
    """
    wanted = normalised(right)
    if normalised(begun[-1]) == wanted:
        return STRICT
    return WORD if wanted in map(normalised, begun) else WRONG
