# SPDX-License-Identifier: Apache-2.0
"""What lies under each visual token of a scene: the dense labels that teach the vision tower."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokenprune.bench.world.palette import CELL, GRID, SIZE, SLOT, SLOTS, shape_mask
from tokenprune.bench.world.render import centre
from tokenprune.bench.world.scene import Scene, Thing

IGNORE = -100
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DenseLabels:
    """Each `(SLOTS, GRID, GRID)`; 0 is nothing, k + 1 is entry k of its list, `IGNORE` is too little to tell."""

    colour: Labels
    shape: Labels
    direction: Labels
    """1 for an object that stands still, k + 2 for entry k of `DIRECTIONS`."""
    flash: Labels
    letter: Labels


def dense_labels(scene: Scene, least: float = 0.12) -> DenseLabels:
    """Labels of each visual token.

    Args:
        scene: the scene.
        least: share of a cell that an object must cover to give the cell its label.
    """
    blank = np.zeros((SLOTS, GRID, GRID), dtype=np.int64)
    colour, shape, direction = blank.copy(), blank.copy(), blank.copy()
    for shot in scene.shots:
        for slot in range(shot.start // SLOT, shot.stop // SLOT):
            cover = np.stack([_cover(shot.start, thing, slot) for thing in shot.things])
            covered = cover.sum(axis=(2, 4)) / CELL**2
            best = covered.argmax(axis=0)
            share = covered.max(axis=0)
            for i, thing in enumerate(shot.things):
                here = (best == i) & (share >= least)
                colour[slot][here] = thing.colour + 1
                shape[slot][here] = thing.shape + 1
                direction[slot][here] = thing.direction + 2
            faint = (share > 0) & (share < least)
            for label in (colour, shape, direction):
                label[slot][faint] = IGNORE
    flash, letter = blank.copy(), blank.copy()
    for light in scene.flashes:
        flash[light.slot, light.y // CELL, light.x // CELL] = light.colour + 1
    if scene.sign is not None:
        letter[scene.sign.slot, scene.sign.y // CELL, scene.sign.x // CELL] = scene.sign.letter + 1
    return DenseLabels(colour, shape, direction, flash, letter)


def _cover(start: int, thing: Thing, slot: int) -> npt.NDArray[np.bool_]:
    """Pixels of one object in the first frame of a slot, as cells: `(GRID, CELL, GRID, CELL)`."""
    pixels = np.zeros((SIZE, SIZE), dtype=np.bool_)
    frame = slot * SLOT
    if thing.first <= frame < thing.stop:
        x, y = centre(thing, frame, start)
        mask = shape_mask(thing.shape, thing.radius)
        r = thing.radius
        pixels[y - r : y + r + 1, x - r : x + r + 1] = mask
    return pixels.reshape(GRID, CELL, GRID, CELL)
