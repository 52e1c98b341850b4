# SPDX-License-Identifier: Apache-2.0
"""A small made-up world on video: seeded clips with questions and answers, made on the fly.

`sample(seed)` gives a clip; `write_mp4` writes it to a file. Nothing here imports torch.
"""

from __future__ import annotations

from tokenprune.bench.world.clip import HELD_OUT, Clip, questions_of, sample
from tokenprune.bench.world.palette import FPS, FRAMES, SIZE
from tokenprune.bench.world.questions import KINDS, SMALL_KINDS, Question
from tokenprune.bench.world.scene import Scene, sample_scene
from tokenprune.bench.world.video import through_mp4, write_mp4

__all__ = [
    "FPS",
    "FRAMES",
    "HELD_OUT",
    "KINDS",
    "SIZE",
    "SMALL_KINDS",
    "Clip",
    "Question",
    "Scene",
    "questions_of",
    "sample",
    "sample_scene",
    "through_mp4",
    "write_mp4",
]
