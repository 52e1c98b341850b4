# SPDX-License-Identifier: Apache-2.0
"""Scenes of a video by the similarity of consecutive frames: FastVID and FlashVID."""

from __future__ import annotations

import itertools

import torch

from tokenprune.batching import pieces
from tokenprune.operators.unit_vectors import STEP, cosines_of, units
from tokenprune.points import Points
from tokenprune.segments import Segment


def frame_cosines(points: Points, frames: int) -> list[float]:
    """Resolved cosine of each frame's mean to the next one's: T - 1 numbers. Waits for the device."""
    length = points.count // frames
    means = [
        points.read(slice(piece.start * length, piece.stop * length)).view(-1, length, points.dim).mean(dim=1)
        for piece in pieces(frames, length * points.dim, points.device)
    ]
    directions = units(torch.cat(means))
    return cosines_of(directions[1:], directions[:-1]).tolist()


def scenes_of(cosines: list[float], at_least: int, threshold: float) -> list[Segment]:
    """Cut where the cosine is below ``threshold``, and at the lowest others until there are ``at_least`` scenes.

    Of equal cosines the earlier is cut first. There are no more scenes than frames.

    >>> scenes_of([0.9, 0.2, 0.95, 0.8], 3, 0.5)
    [(0, 2), (2, 4), (4, 5)]
    """
    lowest = sorted(range(len(cosines)), key=lambda t: cosines[t])[: at_least - 1]
    cuts = {t + 1 for t in lowest} | set(breaks(cosines, threshold))
    return list(itertools.pairwise([0, *sorted(cuts), len(cosines) + 1]))


def breaks(cosines: list[float], threshold: float) -> list[int]:
    """The frames that are unlike the one before: whose cosine to it is below ``threshold``."""
    least = round(threshold / STEP) * STEP
    return [t + 1 for t, cosine in enumerate(cosines) if cosine < least]
