# SPDX-License-Identifier: Apache-2.0
"""Deterministic clips of visual-token features on which the package is compared with the reference."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

# Multiples of this are exact in fp32, and so are their means over 1 to 8 frames (840 is divisible by 1..8).
EXACT_STEP = 840 / 1024


@dataclass(frozen=True)
class Clip:
    """``features`` (T*H*W, D) float32 in raster order (t, h, w), ``grid`` (T, H, W)."""

    name: str
    features: np.ndarray
    grid: tuple[int, int, int]


def _clip(name: str, grid: tuple[int, int, int], features: np.ndarray) -> Clip:
    frames, height, width = grid
    return Clip(name, np.ascontiguousarray(features.reshape(frames * height * width, -1), dtype=np.float32), grid)


def random_clip(grid: tuple[int, int, int], dim: int, seed: int, *, scale: float = 1.0) -> Clip:
    """Independent normal features: nothing is static (dim permitting), no scene is to be found."""
    generator = np.random.default_rng(seed)
    return _clip(f"random-{seed}", grid, scale * generator.standard_normal((*grid, dim)))


def structured_clip(
    grid: tuple[int, int, int],
    dim: int,
    seed: int,
    *,
    scenes: int = 2,
    blobs: int = 2,
    noise: float = 0.05,
    scale: float = 1.0,
) -> Clip:
    """Scenes of about equal length: a still background of its own feature per position, blobs that move, noise."""
    frames, height, width = grid
    generator = np.random.default_rng(seed)
    features = np.zeros((*grid, dim))
    size = max(1, min(height, width) // 3)
    bounds = [frames * scene // scenes for scene in range(scenes + 1)]
    for start, stop in itertools.pairwise(bounds):
        background = 1.5 * generator.standard_normal(dim) + generator.standard_normal((height, width, dim))
        features[start:stop] = background
        for _ in range(blobs):
            colour = 2 * generator.standard_normal(dim)
            top, left = generator.integers(height), generator.integers(width)
            down, right = generator.integers(1, 3), generator.integers(1, 3)
            for t in range(start, stop):
                rows = (top + down * (t - start) + np.arange(size)) % height
                columns = (left + right * (t - start) + np.arange(size)) % width
                features[t][np.ix_(rows, columns)] = colour
    features += noise * generator.standard_normal(features.shape)
    return _clip(f"structured-{seed}", grid, scale * features)


def drifting_clip(grid: tuple[int, int, int], dim: int, seed: int, *, noise: float = 0.02, cut: bool = True) -> Clip:
    """A background that slowly turns, a block that moves over it, a cut to another scene after half of the frames."""
    frames, height, width = grid
    generator = np.random.default_rng(seed)
    features = np.zeros((*grid, dim))
    scenes = 1.0 + generator.standard_normal((2, height, width, dim))
    drift = 0.1 * generator.standard_normal(dim)
    block = 3.0 * generator.standard_normal(dim)
    size = max(1, min(height, width) // 2)
    for t in range(frames):
        features[t] = scenes[int(cut and t >= (frames + 1) // 2)] + t * drift
        rows, columns = (t + np.arange(size)) % height, (2 * t + np.arange(size)) % width
        features[t][np.ix_(rows, columns)] = block
    return _clip(f"drifting-{seed}", grid, features + noise * generator.standard_normal(features.shape))


def areas_clip(grid: tuple[int, int, int], dim: int, seed: int, *, noise: float = 0.1) -> Clip:
    """Areas of one colour each in frames that stand still, a block that moves over them, a cut after half of them."""
    frames, height, width = grid
    generator = np.random.default_rng(seed)
    features = np.zeros((*grid, dim))
    colours = generator.standard_normal((2, 2, 2, dim))
    block = 2.0 * generator.standard_normal(dim)
    for t, h, w in itertools.product(range(frames), range(height), range(width)):
        scene = int(t >= (frames + 1) // 2)
        features[t, h, w] = colours[scene, int(h > height // 3), int(w > width // 3 + scene)]
        if h == height // 2 and w == (2 * t) % width:
            features[t, h, w] = block
    return _clip(f"areas-{seed}", grid, features + noise * generator.standard_normal(features.shape))


def method_clips() -> list[Clip]:
    """Few and small clips on which slow references of whole methods are run: a bit of everything."""
    frame = random_clip((1, 3, 4), 6, 44).features.reshape(1, 3, 4, 6)
    return [
        drifting_clip((8, 3, 4), 6, 41),
        structured_clip((6, 4, 5), 8, 42, scenes=2, blobs=1),
        random_clip((5, 3, 3), 6, 43),
        _clip("still-small", (6, 3, 4), np.broadcast_to(frame, (6, 3, 4, 6))),
        _clip("all-equal-small", (4, 2, 3), np.full((4, 2, 3, 4), 0.75)),
        _clip("all-zero-small", (4, 2, 3), np.zeros((4, 2, 3, 4))),
        random_clip((1, 4, 5), 6, 45),
        random_clip((9, 1, 1), 6, 46),
        random_clip((1, 1, 1), 6, 47),
    ]


def signals_of(clip: Clip) -> dict[str, np.ndarray]:
    """Made-up signals of the encoder and of a question for every token; those of an "all-..." clip are constant."""
    frames, height, width = clip.grid
    generator = np.random.default_rng(len(clip.features))
    drawn = generator.random((frames, height * width)) + 0.05
    if clip.name.startswith("all-"):
        drawn = np.ones_like(drawn)
    share = drawn / drawn.sum(axis=1, keepdims=True)
    turn = generator.standard_normal((clip.features.shape[1], 5))
    return {
        "encoder_column": np.float32(share / 4).reshape(-1),
        "encoder_pooled": np.float32(share).reshape(-1),
        "encoder_keys": np.float32(clip.features @ turn),
        "relevance": np.float32(drawn).reshape(-1),
        "text": np.float32(generator.standard_normal((3, clip.features.shape[1]))),
    }


def degenerate_clips() -> list[Clip]:
    """Clips full of ties, zeros, extreme scales and smallest sizes."""
    generator = np.random.default_rng(2024)
    grid = (8, 4, 4)
    one_hot = np.eye(6)

    two_values = np.where(generator.random((*grid, 1)) < 0.5, [1.0, 2.0, -1.0, 0.5], [-2.0, 1.0, 1.0, 0.25])
    some_zero = generator.standard_normal((*grid, 6)) * (generator.random((*grid, 1)) < 0.5)
    still = np.broadcast_to(generator.standard_normal((1, 4, 5, 6)), (6, 4, 5, 6))
    still_one_hot = np.broadcast_to(one_hot[generator.integers(6, size=(1, 4, 4))], (*grid, 6))
    pairs = np.repeat(generator.standard_normal((4, 4, 4, 6)), 2, axis=0)  # four scenes of two frames
    returning = np.concatenate([pairs[:4], pairs[:4]])  # scenes A B A B

    return [
        _clip("all-equal", grid, np.full((*grid, 4), 0.75)),
        _clip("all-zero", grid, np.zeros((*grid, 4))),
        _clip("some-zero", grid, some_zero),
        _clip("two-values", grid, two_values),
        _clip("integers", (2, 4, 5), generator.integers(-2, 3, size=(2, 4, 5, 2))),
        _clip("integers-one-dim", (4, 4, 4), generator.integers(1, 4, size=(4, 4, 4, 1))),
        _clip("lattice", grid, EXACT_STEP * generator.integers(0, 3, size=(*grid, 4))),
        _clip(
            "lattice-still", grid, np.broadcast_to(EXACT_STEP * generator.integers(0, 3, size=(1, 4, 4, 4)), (*grid, 4))
        ),
        _clip("one-hot", grid, one_hot[generator.integers(6, size=grid)]),
        _clip("one-hot-still", grid, still_one_hot),
        _clip("still", (6, 4, 5), still),
        _clip("scenes-of-two-frames", grid, pairs),
        _clip("scenes-that-return", grid, returning),
        _clip("huge", grid, structured_clip(grid, 8, 31, scale=1e4).features),
        _clip("tiny", grid, structured_clip(grid, 8, 32, scale=1e-4).features),
        _clip("one-frame", (1, 5, 6), random_clip((1, 5, 6), 8, 33).features),
        _clip("one-frame-few", (1, 2, 7), random_clip((1, 2, 7), 8, 34).features),
        _clip("two-frames", (2, 4, 5), structured_clip((2, 4, 5), 8, 35, scenes=1, blobs=1).features),
        _clip("three-frames", (3, 4, 5), structured_clip((3, 4, 5), 8, 36, scenes=1, blobs=1).features),
        _clip("one-position", (9, 1, 1), structured_clip((9, 1, 1), 8, 37, blobs=0).features),
        _clip("one-token", (1, 1, 1), random_clip((1, 1, 1), 8, 38).features),
        _clip("two-columns", (8, 9, 2), structured_clip((8, 9, 2), 8, 39).features),
        _clip("one-dim", grid, random_clip(grid, 1, 40).features),
    ]
