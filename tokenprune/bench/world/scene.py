# SPDX-License-Identifier: Apache-2.0
"""What happens in a clip, as plain data, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tokenprune.bench.world.palette import (
    CELL,
    COLOURS,
    DIRECTIONS,
    FLASH_RADIUS,
    FRAMES,
    GRID,
    LETTERS,
    SHAPES,
    SIDES,
    SIGN_RADIUS,
    SIZE,
    SLOT,
    STEPS,
    side_cells,
)
from tokenprune.errors import InvalidValueError

WORLD_VERSION = 1
CUT_SHARE = 0.25


@dataclass(frozen=True)
class Thing:
    """An object: where its centre is in frame `start` of its shot, and how far it goes each frame (pixels)."""

    colour: int
    shape: int
    radius: int
    big: bool
    x: float
    y: float
    direction: int
    """Index into `DIRECTIONS`, or -1: it stands still."""
    speed: float
    first: int
    stop: int
    """Seen in frames `first` up to, not including, `stop`."""


@dataclass(frozen=True)
class Shot:
    """Frames `start` up to `stop`: one background, one set of objects."""

    start: int
    stop: int
    texture: int
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Flash:
    """A small light, inside one cell, seen in the frames of one slot."""

    colour: int
    side: int
    slot: int
    x: int
    y: int


@dataclass(frozen=True)
class Sign:
    """A small black plate with a white letter, inside one cell, seen in the frames of one slot."""

    letter: int
    slot: int
    x: int
    y: int


@dataclass(frozen=True)
class Scene:
    """Everything that happens in a clip."""

    seed: int
    shots: tuple[Shot, ...]
    flashes: tuple[Flash, ...]
    """In the order in which they come; colours, sides and slots all differ."""
    sign: Sign | None
    frames: int = FRAMES
    """Frames of the clip."""

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(thing for shot in self.shots for thing in shot.things)

    @property
    def movers(self) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if thing.direction >= 0)


def sample_scene(seed: int, cut_share: float = CUT_SHARE, frames: int = FRAMES) -> Scene:
    """The scene of a seed: the same seed, the same scene.

    A longer clip shows the same world in finer steps of time: objects go as far, each frame less; cuts, comings and
    goings lie in proportion. Flashes and signs stay as brief as they are, one slot, so that few frames miss them.

    Args:
        seed: any integer >= 0.
        cut_share: share of scenes of two shots.
        frames: of the clip, a multiple of `FRAMES`.

    Raises:
        InvalidValueError: another number of frames.
    """
    if frames < FRAMES or frames % FRAMES:
        raise InvalidValueError(f"frames must be a multiple of {FRAMES}, got {frames}")
    finer = frames // FRAMES
    rng = np.random.default_rng([WORLD_VERSION, seed])
    two = bool(rng.random() < cut_share)
    cut = finer * int(rng.choice([6, 8, 10])) if two else frames
    colours = [int(c) for c in rng.permutation(len(COLOURS))]
    movers = 1 if rng.random() < 0.7 else 2
    if two:
        moving = [[True, False], [movers == 2, False]]
        if rng.random() < 0.5:
            moving.reverse()
        shots = tuple(
            _shot(rng, span, colours[2 * i : 2 * i + 2], moving[i], [True, False], finer, False)
            for i, span in enumerate(((0, cut), (cut, frames)))
        )
    else:
        count = int(rng.integers(2, 5))
        sizes = [bool(v) for v in rng.random(count) < 0.55]
        moves = [i < movers for i in range(count)]
        comes_or_goes = bool(rng.random() < 0.35)
        shots = (_shot(rng, (0, frames), colours[:count], moves, sizes, finer, comes_or_goes),)
    slots = frames // SLOT
    flashes, taken = _flashes(rng, slots)
    sign = _sign(rng, taken, slots) if rng.random() < 0.6 else None
    return Scene(seed, shots, flashes, sign, frames)


def _shot(
    rng: np.random.Generator,
    span: tuple[int, int],
    colours: list[int],
    moving: list[bool],
    sizes: list[bool],
    finer: int,
    comes_or_goes: bool,
) -> Shot:
    start, stop = span
    order = rng.permutation(len(sizes))
    things: list[Thing] = []
    for i, colour in enumerate(colours):
        big = sizes[int(order[i])]
        radius = int(rng.integers(21, 25)) if big else int(rng.integers(12, 15))
        things.append(_place(rng, span, things, colour, radius, big, moving[i], finer))
    if comes_or_goes and not moving[-1]:
        last = things[-1]
        comes = bool(rng.random() < 0.5)
        frame = finer * int(rng.choice([4, 6, 8] if comes else [8, 10, 12]))
        things[-1] = replace(last, first=frame if comes else start, stop=stop if comes else frame)
    drawn = tuple(things[int(i)] for i in rng.permutation(len(things)))
    return Shot(start, stop, int(rng.integers(2**31)), drawn)


def _place(
    rng: np.random.Generator,
    span: tuple[int, int],
    others: list[Thing],
    colour: int,
    radius: int,
    big: bool,
    moves: bool,
    finer: int,
) -> Thing:
    """An object whose whole way lies in the frame, and that starts and stays clear of the others where it can."""
    start, stop = span
    length = stop - start
    direction = int(rng.integers(len(DIRECTIONS))) if moves else -1
    speed = 0.0
    if moves:
        whole = length == finer * FRAMES
        speed = float(rng.uniform(5.0, 7.0) if whole else rng.uniform(7.0, 9.0)) / finer
    low, high = radius + 1.0, SIZE - radius - 2.0
    travel = speed * (length - 1)
    best = (low, low)
    best_gap = -np.inf
    for _ in range(24):
        along = float(rng.uniform(low, high - travel))
        across = float(rng.uniform(low, high))
        if direction < 0:
            x, y = along, across
        else:
            step = int(STEPS[direction].sum())
            along = along if step > 0 else along + travel
            x, y = (along, across) if DIRECTIONS[direction] in ("left", "right") else (across, along)
        gap = min((float(np.hypot(x - t.x, y - t.y)) - radius - t.radius for t in others), default=np.inf)
        if gap > best_gap:
            best, best_gap = (x, y), gap
        if gap >= 6:
            break
    return Thing(
        colour,
        int(rng.integers(len(SHAPES))),
        radius,
        big,
        best[0],
        best[1],
        direction,
        speed,
        start,
        stop,
    )


def _flashes(rng: np.random.Generator, slots: int) -> tuple[tuple[Flash, ...], set[tuple[int, int]]]:
    count = int(rng.integers(1, 5))
    sides = rng.permutation(len(SIDES))[:count]
    colours = rng.permutation(len(COLOURS))[:count]
    when = np.sort(rng.permutation(slots)[:count])
    flashes: list[Flash] = []
    taken: set[tuple[int, int]] = set()
    for side, colour, slot in zip(sides, colours, when):
        cells = side_cells(int(side))
        row, column = cells[int(rng.integers(len(cells)))]
        taken.add((row, column))
        x, y = _inside(rng, row, column, FLASH_RADIUS)
        flashes.append(Flash(int(colour), int(side), int(slot), x, y))
    return tuple(flashes), taken


def _sign(rng: np.random.Generator, taken: set[tuple[int, int]], slots: int) -> Sign:
    free = [(r, c) for r in range(GRID) for c in range(GRID) if (r, c) not in taken]
    row, column = free[int(rng.integers(len(free)))]
    x, y = _inside(rng, row, column, SIGN_RADIUS)
    return Sign(int(rng.integers(len(LETTERS))), int(rng.integers(slots)), x, y)


def _inside(rng: np.random.Generator, row: int, column: int, radius: int) -> tuple[int, int]:
    """A centre such that a patch of this radius lies within one cell."""
    x, y = rng.integers(radius + 1, CELL - radius - 1, size=2)
    return int(column * CELL + x), int(row * CELL + y)
