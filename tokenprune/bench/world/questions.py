# SPDX-License-Identifier: Apache-2.0
"""The kinds of question, and the questions that a scene can be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tokenprune.bench.world.palette import COLOURS, DIRECTIONS, LETTERS, SHAPES, SIDES
from tokenprune.bench.world.scene import Scene, Thing


@dataclass(frozen=True)
class Question:
    """A question about one clip."""

    kind: str
    text: str
    answer: str
    options: tuple[str, ...]
    """Every answer that this kind of question can have, whatever the clip."""


Draw = np.random.Generator
COUNTS = ("1", "2", "3", "4")
YES_NO = ("yes", "no")


def _pick(rng: Draw, texts: tuple[str, ...]) -> str:
    return texts[int(rng.integers(len(texts)))]


def _one(rng: Draw, things: tuple[Thing, ...]) -> Thing:
    return things[int(rng.integers(len(things)))]


def _spelt(rng: Draw) -> str:
    return "colour" if rng.random() < 0.75 else "color"


def _shape(scene: Scene, rng: Draw) -> Question | None:
    thing = _one(rng, scene.things)
    colour = COLOURS[thing.colour]
    text = _pick(rng, ("What shape is the {} object?", "Which shape does the {} object have?"))
    return Question("shape", text.format(colour), SHAPES[thing.shape], SHAPES)


def _direction(scene: Scene, rng: Draw) -> Question | None:
    thing = _one(rng, scene.movers)
    noun = SHAPES[thing.shape] if rng.random() < 0.6 else "object"
    texts = (
        "Which way does the {} {} move?",
        "In which direction does the {} {} move?",
        "Which way is the {} {} going?",
    )
    text = _pick(rng, texts).format(COLOURS[thing.colour], noun)
    return Question("direction", text, DIRECTIONS[thing.direction], DIRECTIONS)


def _moves(scene: Scene, rng: Draw) -> Question | None:
    if len(scene.movers) != 1:
        return None
    texts = ("What {} is the object that moves?", "What {} is the moving object?", "Which {} moves?")
    text = _pick(rng, texts).format(_spelt(rng))
    return Question("moves", text, COLOURS[scene.movers[0].colour], COLOURS)


def _where(scene: Scene, rng: Draw) -> Question | None:
    flash = scene.flashes[int(rng.integers(len(scene.flashes)))]
    text = _pick(rng, ("Where is the {} flash?", "On which side is the {} flash?"))
    return Question("where", text.format(COLOURS[flash.colour]), SIDES[flash.side], SIDES)


def _colour(scene: Scene, rng: Draw) -> Question | None:
    flash = scene.flashes[int(rng.integers(len(scene.flashes)))]
    text = _pick(rng, ("What {} is the flash on the {}?", "What {} is the {} flash?"))
    text = text.format(_spelt(rng), SIDES[flash.side])
    return Question("colour", text, COLOURS[flash.colour], COLOURS)


def _exists(scene: Scene, rng: Draw) -> Question | None:
    seen = [flash.colour for flash in scene.flashes]
    yes = bool(rng.random() < 0.5)
    among = seen if yes else [c for c in range(len(COLOURS)) if c not in seen]
    colour = COLOURS[among[int(rng.integers(len(among)))]]
    text = _pick(rng, ("Is there a {} flash?", "Do you see a {} flash?"))
    return Question("exists", text.format(colour), YES_NO[0 if yes else 1], YES_NO)


def _count(scene: Scene, rng: Draw) -> Question | None:
    text = _pick(rng, ("How many flashes are there?", "How many flashes do you see?"))
    return Question("count", text, COUNTS[len(scene.flashes) - 1], COUNTS)


def _first(scene: Scene, rng: Draw) -> Question | None:
    if len(scene.flashes) < 2:
        return None
    first = bool(rng.random() < 0.5)
    text = _pick(rng, ("What {} is the {} flash?", "Which {} flashes {}?"))
    text = text.format(_spelt(rng), "first" if first else "last")
    return Question("first", text, COLOURS[scene.flashes[0 if first else -1].colour], COLOURS)


def _before(scene: Scene, rng: Draw) -> Question | None:
    if len(scene.shots) != 2:
        return None
    shot = int(rng.integers(2))
    thing = _one(rng, scene.shots[shot].things)
    texts = ("What {} is the {} object {} the cut?", "Which {} does the {} object have {} the cut?")
    text = _pick(rng, texts).format(_spelt(rng), "big" if thing.big else "small", ("before", "after")[shot])
    return Question("before", text, COLOURS[thing.colour], COLOURS)


def _detail(scene: Scene, rng: Draw) -> Question | None:
    if scene.sign is None:
        return None
    text = _pick(rng, ("What letter is on the sign?", "Which letter does the sign show?"))
    return Question("detail", text, LETTERS[scene.sign.letter], LETTERS)


_ASKERS: dict[str, Callable[[Scene, Draw], Question | None]] = {
    "shape": _shape,
    "direction": _direction,
    "moves": _moves,
    "where": _where,
    "colour": _colour,
    "exists": _exists,
    "count": _count,
    "first": _first,
    "before": _before,
    "detail": _detail,
}

KINDS: tuple[str, ...] = tuple(_ASKERS)
"""Every kind of question."""

SMALL_KINDS: tuple[str, ...] = ("where", "colour", "exists", "count", "first", "detail")
"""Kinds whose evidence is one visual token of one slot (`first`: of two, `count`: of up to four)."""


def ask(scene: Scene, kind: str, rng: Draw) -> Question | None:
    """A question of a kind, or None where the scene does not have what it asks about.

    Args:
        scene: the scene.
        kind: one of `KINDS`.
        rng: draws wording and subject.
    """
    return _ASKERS[kind](scene, rng)
