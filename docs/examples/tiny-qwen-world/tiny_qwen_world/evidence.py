# SPDX-License-Identifier: Apache-2.0
"""Which visual tokens show what a question asks about."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tiny_qwen_world.labels import DenseLabels
from tokenprune.bench.world.palette import COLOURS, SIDES
from tokenprune.bench.world.questions import Question
from tokenprune.bench.world.scene import Scene

Evidence = npt.NDArray[np.bool_]


def words_of(text: str) -> list[str]:
    """The words of a question, without punctuation."""
    return [word.strip("?.,!") for word in text.split()]


def named_colour(text: str) -> int | None:
    """Index of the colour that a question names, or None."""
    named = [COLOURS.index(word) for word in words_of(text) if word in COLOURS]
    return named[0] if named else None


def evidence(scene: Scene, labels: DenseLabels, question: Question) -> Evidence:
    """Visual tokens that show the answer, bool `(SLOTS, GRID, GRID)`; none where a flash is asked for in vain.

    Args:
        scene: the scene.
        labels: its dense labels.
        question: a question about it.
    """
    kind, words = question.kind, words_of(question.text)
    colour = named_colour(question.text)
    if kind == "detail":
        return labels.letter > 0
    if kind == "count":
        return labels.flash > 0
    if kind in ("where", "exists") and colour is not None:
        return labels.flash == colour + 1
    if kind == "colour":
        side = next(SIDES.index(word) for word in words if word in SIDES)
        return labels.flash == next(flash.colour for flash in scene.flashes if flash.side == side) + 1
    if kind == "first":
        return labels.flash == scene.flashes[0 if "first" in words else -1].colour + 1
    if kind in ("shape", "direction") and colour is not None:
        return labels.colour == colour + 1
    if kind in ("moves", "before"):
        return labels.colour == COLOURS.index(question.answer) + 1
    raise ValueError(f"no question of the world: {question}")
