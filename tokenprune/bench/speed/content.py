# SPDX-License-Identifier: Apache-2.0
"""Made-up visual tokens whose redundancy is known: what pruning costs depends on what there is to merge."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown

SPACING = 4
"""Positions between two independent places of a pattern; what lies between is interpolated."""

COMMON = 0.5
"""Length of what all tokens of a scene share, where a token's own part has length 1."""

NOISE = 0.15
"""Length of each token's noise."""


def scene_features(
    grid: tuple[int, int, int],
    dim: int,
    *,
    static: float,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    scene_frames: int = 4,
) -> Tensor:
    """Features of a clip of several scenes, ``(T*H*W, D)`` in raster order, of about unit variance.

    A token is the scene's common vector, plus a pattern that changes smoothly over the positions, plus noise. At the
    static positions the pattern is the scene's, at the others it is drawn anew in each frame. Two tokens of a static
    position have a cosine of about 0.98 within their scene, of another position about 0.2, and of different scenes
    about 0; the fewer components, the wider the spread (from 64 on, the mean over a scene stays above 0.9, or below
    0.7). The same on every device, to rounding in ``dtype``; fewer frames of the same seed are the first of more.

    Args:
        grid: ``(T, H, W)``.
        dim: components of a token.
        static: fraction of the positions that stay the same within a scene, rounded down; chosen anew in each scene.
        seed: of everything that is drawn.
        dtype: of the result; everything is drawn in fp32.
        device: of the result; everything is drawn on the CPU, a scene at a time.
        scene_frames: frames of a scene; the last one has what is left.

    Raises:
        InvalidValueError: a size below 1, or ``static`` outside [0, 1].
    """
    if min(*grid, dim, scene_frames) < 1:
        raise InvalidValueError(
            f"sizes must be at least 1, got grid={shown(grid)}, dim={dim}, scene_frames={scene_frames}"
        )
    if not 0 <= static <= 1:
        raise InvalidValueError(f"static must be a fraction in [0, 1], got {shown(static)}")
    frames, height, width = grid
    length = height * width
    still = math.floor(Fraction(str(static)) * length)
    draw = torch.Generator("cpu").manual_seed(seed)
    features = torch.empty(frames * length, dim, dtype=dtype, device=device)
    for start in range(0, frames, scene_frames):
        count = min(scene_frames, frames - start)
        scene = _scene(count, (height, width), dim, still, draw)
        features[start * length : (start + count) * length] = scene.flatten(0, 1).to(device, dtype)
    return features


def _scene(frames: int, size: tuple[int, int], dim: int, still: int, draw: torch.Generator) -> Tensor:
    """``(frames, L, D)`` tokens of one scene with ``still`` static positions."""
    length = size[0] * size[1]
    common = _normal((dim,), draw)
    lasting = _pattern(size, dim, draw)
    dynamic = torch.randperm(length, generator=draw, device="cpu")[still:]
    tokens = torch.empty(frames, length, dim, dtype=torch.float32, device="cpu")
    for frame in tokens:
        frame.copy_(lasting)
        frame[dynamic] = _pattern(size, dim, draw)[dynamic]
        frame.add_(_normal((length, dim), draw), alpha=NOISE)
    tokens.add_(common, alpha=COMMON)
    return tokens.div_(math.sqrt(1 + COMMON**2 + NOISE**2))


def _pattern(size: tuple[int, int], dim: int, draw: torch.Generator) -> Tensor:
    """``(L, D)`` of unit variance in each token: random vectors, :data:`SPACING` apart, and the ways between them."""
    coarse = [math.ceil((side - 1) / SPACING) + 1 for side in size]
    nodes = _normal((1, dim, *coarse), draw)
    smooth = F.interpolate(nodes, size=size, mode="bilinear", align_corners=True)[0].flatten(1).T
    return F.normalize(smooth, dim=1) * math.sqrt(dim)


def _normal(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=draw, dtype=torch.float32, device="cpu")
