# SPDX-License-Identifier: Apache-2.0
"""What is computed from one video's features before clustering, in fp32, a piece of the video at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tokenprune.cluster import POINT_BYTES
from tokenprune.segments import Segment

_EXPONENTS = {torch.float32: (-120, 126), torch.float64: (-1000, 1020)}  # 2**-e is a normal number for these e


class GridFeatures:
    """Features of T frames of L positions, read in fp32 and scaled by a power of two.

    The scale brings the largest component near 1, so that no square overflows; it changes no mantissa, so equal
    stays equal. Next to the largest component, components below some 1e-19 count as zero.

    Args:
        features: ``(T*L, D)`` finite floating-point features in raster order.
        frames: T.
    """

    def __init__(self, features: Tensor, frames: int) -> None:
        self._features = features.reshape(frames, -1, features.shape[1])
        self.frames, self.length, self.dim = self._features.shape
        self.device = features.device
        self._wide = torch.float64 if features.dtype == torch.float64 else torch.float32
        low, high = torch.aminmax(features)
        _, exponent = torch.frexp(torch.maximum(-low, high).to(self._wide))
        self._factor = torch.ldexp(
            torch.ones((), dtype=self._wide, device=self.device), -exponent.clamp(*_EXPONENTS[self._wide])
        )

    def units(self, merged: Tensor) -> Tensor:
        """Squared distance of two sums of ``merged`` tokens whose means lie ``sqrt(D)`` apart: ``(...)`` fp64."""
        return (merged.to(self.device).double() * self._factor.double()).square() * self.dim

    def tokens(self, frames: list[int], positions: Tensor) -> Tensor:
        """Tokens at ``positions`` ``(G, n)`` of G ``frames``: ``(G, n, D)``."""
        return self._read(self._features[torch.tensor(frames, device=self.device)[:, None], positions])

    def time_sums(self, segment: Segment, positions: Tensor) -> Tensor:
        """Sum of the tokens at ``positions`` ``(n,)`` over a segment's frames: ``(n, D)``."""
        frames = self._features[slice(*segment)]
        pieces = self._pieces(len(positions), len(frames))
        return torch.cat([self._read(frames[:, positions[piece]]).sum(dim=0) for piece in pieces])

    def frame_sums(self) -> Tensor:
        """Sum of each frame's tokens: ``(T, D)``."""
        pieces = self._pieces(self.frames, self.length)
        return torch.cat([self._read(self._features[piece]).sum(dim=1) for piece in pieces])

    def similarity(self, segment: Segment) -> Tensor:
        """Mean cosine over all pairs of a segment's frames, per position: ``(L,)`` fp32 (PruneVid, equation 3).

        A zero token has cosine 0 to every other. Of a single frame there are no pairs: -inf, below any threshold.
        """
        frames = self._features[slice(*segment)]
        width = len(frames)
        if width == 1:
            return torch.full((self.length,), -math.inf, device=self.device)
        found: list[Tensor] = []
        for piece in self._pieces(self.length, width):
            tokens = self._read(frames[:, piece])
            norms = torch.linalg.vector_norm(tokens, dim=2)
            inverse = torch.where(norms > 0, 1 / norms, 0)
            # |sum of unit vectors|^2 counts each ordered pair once, and each nonzero token with itself.
            resultant = tokens.mul_(inverse[:, :, None]).sum(dim=0).double().square().sum(dim=1)
            found.append((resultant - (norms > 0).sum(dim=0)) / (width * (width - 1)))
        return torch.cat(found).float()

    def _read(self, piece: Tensor) -> Tensor:
        return piece.to(self._wide, copy=True).mul_(self._factor).float()

    def _pieces(self, count: int, tokens_each: int) -> Iterator[slice]:
        """Slices of ``range(count)`` whose fp32 copies, of ``tokens_each`` tokens a step, stay within POINT_BYTES."""
        step = max(1, POINT_BYTES // (tokens_each * self.dim * 4))
        return (slice(start, min(count, start + step)) for start in range(0, count, step))
