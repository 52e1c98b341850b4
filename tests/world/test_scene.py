# SPDX-License-Identifier: Apache-2.0
"""Scenes and frames: the same for the same seed, and what they say is what is seen."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_qwen_world.labels import dense_labels

from tokenprune.bench.world import FRAMES, KINDS, SIZE, SMALL_KINDS, Scene, questions_of, sample, sample_scene
from tokenprune.bench.world.palette import CELL, COLOURS, FLASH_RADIUS, RGB, SIGN_RADIUS, SLOT, SLOTS
from tokenprune.bench.world.render import centre, render
from tokenprune.errors import InvalidValueError

seeds = st.integers(0, 2_000_000_000)

PIXELS = (
    "4d4f4a3f35453c3e4c41414d44442a5c4b4548e2265937384c524033455240314b475456",
    "4e46413b243c433d4345445244461a504449393d26443033495048dd524b473649484b54",
    "4f6357586262496c7c6e3a5252686c625e5b57d8df495660605b53495f5561535e544363",
)
"""Green of the middles of the 36 cells in frames 0, 9 and 15 of seed 3."""


def test_a_seed_always_gives_the_same_clip() -> None:
    one, two, other = sample(1_000_000_007), sample(1_000_000_007), sample(1_000_000_008)
    assert one.scene == two.scene
    assert one.questions == two.questions
    assert np.array_equal(one.frames, two.frames)
    assert not np.array_equal(one.frames, other.frames)


def test_the_questions_of_known_seeds_have_not_changed() -> None:
    """A change here makes every published figure of the benchmark incomparable: raise `WORLD_VERSION` with it."""
    told = "\n".join(f"{q.kind}|{q.text}|{q.answer}" for seed in range(50) for q in questions_of(sample_scene(seed)))
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "b9b67caab31785d2"


def test_the_scenes_and_pixels_of_known_seeds_have_not_changed() -> None:
    """As above. Pixels are compared to one step of grey: sums of the background round as the machine likes."""
    told = hashlib.sha256()
    for seed in range(50):
        scene = dataclasses.asdict(sample_scene(seed))
        assert scene.pop("frames") == FRAMES
        told.update(repr(scene).encode())
    assert told.hexdigest()[:16] == "b3b22f97cd04c618"
    pixels = sample(3).frames[[0, 9, 15], 14::28, 14::28, 1].reshape(3, -1)
    for row, known in zip(pixels.tolist(), PIXELS, strict=True):
        assert row == pytest.approx(list(bytes.fromhex(known)), abs=1)


@given(seeds, st.sampled_from([2, 4, 8]))
@settings(max_examples=40, deadline=None)
def test_a_longer_clip_shows_as_much_in_finer_steps(seed: int, finer: int) -> None:
    scene, short = sample_scene(seed, frames=finer * FRAMES), sample_scene(seed)
    assert scene.frames == finer * FRAMES
    assert [(s.start, s.stop) for s in scene.shots] == [(finer * s.start, finer * s.stop) for s in short.shots]
    assert scene.shots[-1].stop == scene.frames
    for thing in scene.things:
        assert thing.first % finer == thing.stop % finer == 0
        assert thing.stop - thing.first >= 4 * finer
        assert (thing in scene.movers) == (5.0 <= thing.speed * finer <= 9.0)
    slots = [flash.slot for flash in scene.flashes]
    assert slots == sorted(set(slots))
    small = slots + ([scene.sign.slot] if scene.sign else [])
    assert all(0 <= slot < finer * SLOTS for slot in small)
    for shot in scene.shots:
        for thing in shot.things:
            for frame in (thing.first, thing.stop - 1):
                x, y = centre(thing, frame, shot.start)
                assert thing.radius <= min(x, y)
                assert max(x, y) < SIZE - thing.radius


def test_the_events_of_a_longer_clip_fill_its_whole_length() -> None:
    last = [sample_scene(seed, frames=64).flashes[-1].slot for seed in range(60)]
    assert max(last) >= 30


def test_a_flash_of_a_longer_clip_is_as_brief() -> None:
    scene = sample_scene(5, frames=64)
    frames = render(scene).astype(int)
    assert frames.shape == (64, SIZE, SIZE, 3)
    flash = scene.flashes[0]
    spot = frames[:, flash.y - 2 : flash.y + 3, flash.x - 2 : flash.x + 3].mean((1, 2))
    unlike = np.abs(spot - RGB[flash.colour]).max(-1) > 60
    assert np.flatnonzero(~unlike).tolist() == [flash.slot * SLOT, flash.slot * SLOT + 1]


@pytest.mark.parametrize("frames", [0, 8, 24, -16])
def test_a_clip_of_another_length_is_refused(frames: int) -> None:
    with pytest.raises(InvalidValueError, match="multiple of 16"):
        sample_scene(0, frames=frames)


def test_frames_have_the_promised_form() -> None:
    frames = sample(3).frames
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    assert SLOTS * (SIZE // CELL) ** 2 == 288


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_flashes_and_signs_lie_in_one_visual_token(seed: int) -> None:
    scene = sample_scene(seed)
    assert 1 <= len(scene.flashes) <= 4
    for small, radius in [(f, FLASH_RADIUS) for f in scene.flashes] + (
        [(scene.sign, SIGN_RADIUS)] if scene.sign else []
    ):
        assert (small.x - radius) // CELL == (small.x + radius) // CELL
        assert (small.y - radius) // CELL == (small.y + radius) // CELL
        assert 0 <= small.slot < SLOTS
    for attribute in ("colour", "side", "slot"):
        values = [getattr(f, attribute) for f in scene.flashes]
        assert len(set(values)) == len(values)
    assert [f.slot for f in scene.flashes] == sorted(f.slot for f in scene.flashes)


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_objects_stay_in_the_frame_and_differ_in_colour(seed: int) -> None:
    scene = sample_scene(seed)
    assert len({t.colour for t in scene.things}) == len(scene.things)
    assert 2 <= len(scene.things) <= 4
    assert 1 <= len(scene.movers) <= 2
    for shot in scene.shots:
        for thing in shot.things:
            assert thing.stop - thing.first >= 4
            for frame in range(thing.first, thing.stop):
                x, y = centre(thing, frame, shot.start)
                assert thing.radius <= x < SIZE - thing.radius
                assert thing.radius <= y < SIZE - thing.radius


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_a_flash_is_seen_in_its_slot_and_only_there(seed: int) -> None:
    scene = sample_scene(seed)
    frames = render(scene).astype(int)
    for flash in scene.flashes:
        inside = range(flash.slot * SLOT, flash.slot * SLOT + SLOT)
        for frame in range(FRAMES):
            heart = frames[frame, flash.y - 2 : flash.y + 3, flash.x - 2 : flash.x + 3].mean((0, 1))
            ring = frames[frame, flash.y - 7 : flash.y + 8, [flash.x - 7, flash.x + 7]].max(1).min(1).max()
            ratio = heart / heart.max()
            wanted = RGB[flash.colour] / RGB[flash.colour].max()
            seen = np.abs(ratio - wanted).max() < 0.12 and ring > 170
            if frame in inside:
                assert np.abs(ratio - wanted).max() < 0.12
            elif not any(_near(scene, frame, flash.x, flash.y)):
                assert not seen


def _near(scene: Scene, frame: int, x: int, y: int) -> list[bool]:
    near = [abs(f.x - x) < 20 and abs(f.y - y) < 20 and f.slot == frame // SLOT for f in scene.flashes]
    if scene.sign is not None:
        near.append(abs(scene.sign.x - x) < 24 and abs(scene.sign.y - y) < 24 and scene.sign.slot == frame // SLOT)
    for shot in scene.shots:
        if shot.start <= frame < shot.stop:
            for thing in shot.things:
                tx, ty = centre(thing, frame, shot.start)
                near.append(abs(tx - x) < thing.radius + 10 and abs(ty - y) < thing.radius + 10)
    return near


def test_a_mover_moves_the_way_that_is_asked_for() -> None:
    """Read from the frames: the middle of the pixels that look like the object."""
    checked = 0
    for seed in range(40):
        clip = sample(seed)
        if len(clip.scene.shots) != 1:
            continue
        question = next(q for q in clip.questions if q.kind == "direction")
        colour = next(i for i, name in enumerate(COLOURS) if name in question.text.split())
        if any(f.colour == colour and f.slot in (0, SLOTS - 1) for f in clip.scene.flashes):
            continue
        spots = [_middle(clip.frames[i], colour) for i in (0, FRAMES - 1)]
        if spots[0] is None or spots[1] is None:
            continue
        dx, dy = spots[1][0] - spots[0][0], spots[1][1] - spots[0][1]
        way = ("left" if dx < 0 else "right") if abs(dx) > abs(dy) else ("up" if dy < 0 else "down")
        assert way == question.answer
        checked += 1
    assert checked >= 15


def _middle(frame: np.ndarray, colour: int) -> tuple[float, float] | None:
    ratio = frame / np.maximum(frame.max(-1, keepdims=True), 1)
    wanted = RGB[colour] / RGB[colour].max()
    found = (np.abs(ratio - wanted).max(-1) < 0.15) & (frame.max(-1) > 130)
    if found.sum() < 200:
        return None
    y, x = np.nonzero(found)
    return float(x.mean()), float(y.mean())


def test_a_quarter_of_the_clips_has_a_cut() -> None:
    share = np.mean([len(sample_scene(seed).shots) == 2 for seed in range(2000)])
    assert 0.22 < share < 0.28


@pytest.mark.parametrize("seed", range(0, 200, 10))
def test_labels_show_every_flash_and_sign_once(seed: int) -> None:
    scene = sample_scene(seed)
    labels = dense_labels(scene)
    assert sorted(labels.flash[labels.flash > 0].tolist()) == sorted(f.colour + 1 for f in scene.flashes)
    assert (labels.letter > 0).sum() == (scene.sign is not None)
    assert {t.colour + 1 for t in scene.things} == set(labels.colour[labels.colour > 0].tolist())


def test_kinds() -> None:
    assert len(KINDS) == 10
    assert set(SMALL_KINDS) < set(KINDS)
    assert len(SMALL_KINDS) >= len(KINDS) / 2
