# SPDX-License-Identifier: Apache-2.0
"""A clip and its questions, from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokenprune.bench.world.questions import KINDS, Question, ask
from tokenprune.bench.world.render import Frames, render
from tokenprune.bench.world.scene import Scene, sample_scene

HELD_OUT = 1_000_000_000
"""Seeds from here on are never trained on: measure with `HELD_OUT + i`."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip: uint8 frames `(16, 168, 168, 3)`, RGB, one question of every kind that it can be asked."""

    scene: Scene
    frames: Frames
    questions: tuple[Question, ...]


def questions_of(scene: Scene, kinds: tuple[str, ...] = KINDS) -> tuple[Question, ...]:
    """One question of each kind that fits the scene, in the order of `kinds`."""
    rng = np.random.default_rng([17, scene.seed])
    asked = (ask(scene, kind, rng) for kind in kinds)
    return tuple(question for question in asked if question is not None)


def sample(seed: int) -> Clip:
    """The clip of a seed: the same seed, the same frames and the same questions, on every machine.

    Args:
        seed: any integer >= 0; `HELD_OUT` and up are kept for measuring.
    """
    scene = sample_scene(seed)
    return Clip(scene, render(scene), questions_of(scene))
