# SPDX-License-Identifier: Apache-2.0
"""From a scene to frames: textured background, objects, flashes, sign, slow light, sensor noise."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from tokenprune.bench.world.palette import (
    FRAMES,
    RGB,
    SIGN_RADIUS,
    SIZE,
    SLOT,
    STEPS,
    Mask,
    flash_masks,
    letter_mask,
    shape_mask,
)
from tokenprune.bench.world.scene import Scene, Thing

Frames = npt.NDArray[np.uint8]


def centre(thing: Thing, frame: int, start: int) -> tuple[int, int]:
    """Where an object is in a frame, `(x, y)`; `start` is the first frame of its shot."""
    x, y = thing.x, thing.y
    if thing.direction >= 0:
        dx, dy = STEPS[thing.direction]
        x += float(dx) * thing.speed * (frame - start)
        y += float(dy) * thing.speed * (frame - start)
    return round(x), round(y)


def render(scene: Scene) -> Frames:
    """The frames of a scene, uint8 `(scene.frames, SIZE, SIZE, 3)`, RGB."""
    rng = np.random.default_rng([7, scene.seed])
    canvas = np.empty((scene.frames, SIZE, SIZE, 3), dtype=np.int16)
    for shot in scene.shots:
        canvas[shot.start : shot.stop] = _background(shot.texture)
        for thing in shot.things:
            colour = np.clip(RGB[thing.colour] + rng.integers(-10, 11, size=3), 0, 255)
            mask = shape_mask(thing.shape, thing.radius)
            for frame in range(thing.first, thing.stop):
                _stamp(canvas[frame], mask, centre(thing, frame, shot.start), colour)
    halo, heart = flash_masks()
    for flash in scene.flashes:
        for frame in range(flash.slot * SLOT, flash.slot * SLOT + SLOT):
            _stamp(canvas[frame], halo, (flash.x, flash.y), 250)
            _stamp(canvas[frame], heart, (flash.x, flash.y), RGB[flash.colour])
    if scene.sign is not None:
        sign = scene.sign
        plate = np.ones((2 * SIGN_RADIUS + 1,) * 2, dtype=np.bool_)
        for frame in range(sign.slot * SLOT, sign.slot * SLOT + SLOT):
            _stamp(canvas[frame], plate, (sign.x, sign.y), 5)
            _stamp(canvas[frame], letter_mask(sign.letter), (sign.x, sign.y), 245)
    canvas *= _light(rng, scene.frames)
    canvas >>= 7
    canvas += _noise(rng, scene.frames)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _stamp(image: npt.NDArray[np.int16], mask: Mask, where: tuple[int, int], colour: npt.ArrayLike) -> None:
    radius = mask.shape[0] // 2
    x, y = where
    top, left = y - radius, x - radius
    bottom, right = y + radius + 1, x + radius + 1
    part = mask[
        max(0, -top) : mask.shape[0] - max(0, bottom - SIZE), max(0, -left) : mask.shape[1] - max(0, right - SIZE)
    ]
    image[max(0, top) : bottom, max(0, left) : right][part] = colour


@cache
def _upsample(knots: int) -> npt.NDArray[np.float32]:
    """Matrix of linear interpolation from `knots` values to `SIZE` pixels."""
    at = np.linspace(0, knots - 1, SIZE)
    return np.maximum(0, 1 - abs(at[:, None] - np.arange(knots)[None, :])).astype(np.float32)


def _background(texture: int) -> npt.NDArray[np.int16]:
    rng = np.random.default_rng([11, texture])
    base = rng.uniform(50, 125)
    tint = rng.uniform(-12, 12, size=3)
    field = np.zeros((SIZE, SIZE), dtype=np.float32)
    for knots, strength in ((7, 14.0), (42, 7.0)):
        up = _upsample(knots)
        field += up @ rng.normal(0, strength, size=(knots, knots)).astype(np.float32) @ up.T
    return np.clip(base + tint + field[..., None], 5, 200).astype(np.int16)


def _light(rng: np.random.Generator, frames: int) -> npt.NDArray[np.int16]:
    """A gain for each frame in 1/128, `(frames, 1, 1, 1)`: a slow wave of a few per cent."""
    depth, phase, turns = rng.uniform(0.02, 0.1), rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.2)
    wave = 1 + depth * np.sin(phase + 2 * np.pi * turns * np.arange(frames) / frames)
    return np.round(128 * np.minimum(wave, 1.0)).astype(np.int16)[:, None, None, None]


@lru_cache(maxsize=1)
def _noise_bank() -> npt.NDArray[np.int8]:
    """A long strip of unit noise in 1/16: drawing a window of it is far cheaper than drawing new noise."""
    values = np.random.default_rng(13).normal(0, 16, size=4_000_037)
    return np.clip(np.round(values), -127, 127).astype(np.int8)


def _noise(rng: np.random.Generator, frames: int) -> npt.NDArray[np.int16]:
    """Windows of the bank, one for each `FRAMES` frames: a longer clip would not fit in it."""
    bank = _noise_bank()
    count = FRAMES * SIZE * SIZE * 3
    starts = [int(rng.integers(len(bank) - count))]
    strength = int(rng.integers(32, 96))
    starts += [int(rng.integers(len(bank) - count)) for _ in range(frames // FRAMES - 1)]
    noise = np.concatenate([bank[start : start + count] for start in starts]).astype(np.int16)
    noise *= strength
    noise >>= 8
    return noise.reshape(frames, SIZE, SIZE, 3)
