# SPDX-License-Identifier: Apache-2.0
"""Which held-out questions are asked."""

from __future__ import annotations

from dataclasses import dataclass

from tokenprune.bench.world.clip import HELD_OUT, questions_of
from tokenprune.bench.world.questions import KINDS, Question
from tokenprune.bench.world.scene import Scene, sample_scene
from tokenprune.budget import split_budget

SEEDS_APART = 1_000_000
"""Clips between the first of one set of questions and the first of the next."""


@dataclass(frozen=True)
class AskedClip:
    """A held-out clip and what is asked about it."""

    scene: Scene
    questions: tuple[Question, ...]


def ask_world(count: int, seed: int = 0) -> list[AskedClip]:
    """``count`` questions, as many of each kind as of any other (or one more), about held-out clips in order of seeds.

    Clips that have nothing to add are passed over.

    Args:
        count: questions in all.
        seed: which set of clips; sets have no clip in common.
    """
    left = dict(zip(KINDS, split_budget([1] * len(KINDS), [count] * len(KINDS), count)))
    clips: list[AskedClip] = []
    next_seed = HELD_OUT + seed * SEEDS_APART
    while any(left.values()):
        scene = sample_scene(next_seed)
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
