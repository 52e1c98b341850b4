# SPDX-License-Identifier: Apache-2.0
"""What is computed from one video's features before clustering, in fp32, a piece of the video at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenprune.batching import is_one_piece, pieces
from tokenprune.device import upload
from tokenprune.points import power_of_two
from tokenprune.segments import Segment


class GridFeatures:
    """Features of T frames of L positions, read in fp32 and scaled by a power of two.

    The scale brings the largest component near 1, so that no square overflows; it changes no mantissa, so equal
    stays equal. Next to the largest component, components below some 1e-19 count as zero. Nothing here waits for the
    device.

    Args:
        features: ``(T*L, D)`` floating-point features in raster order.
        frames: T.

    Attributes:
        is_finite: ``()`` bool, whether all features are; where not, nothing else means anything.
    """

    def __init__(self, features: Tensor, frames: int) -> None:
        self._flat = features
        self._features = features.reshape(frames, -1, features.shape[1])
        self.frames, self.length, self.dim = self._features.shape
        self.device = features.device
        self._factor, self.is_finite = power_of_two(features)

    def units(self, merged: Tensor) -> Tensor:
        """Squared distance of two sums of ``merged`` tokens whose means lie ``sqrt(D)`` apart: ``(...)`` fp64."""
        return (merged.double() * self._factor.double()).square() * self.dim

    def tokens(self, rows: Tensor) -> Tensor:
        """Tokens at raster places ``rows`` ``(G, n)``: ``(G, n, D)``."""
        return self._read(self._flat.index_select(0, rows.flatten())).view(*rows.shape, self.dim)

    def frame_sums(self) -> Tensor:
        """Sum of each frame's tokens: ``(T, D)``."""
        parts = [
            self._read(self._features[piece]).sum(dim=1)
            for piece in pieces(self.frames, self.length * self.dim, self.device)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def time_sums(self, segments: Sequence[Segment], positions: Tensor) -> Tensor:
        """Sums over each segment's frames of the tokens at its ``positions`` ``(G, n)``, on the CPU: ``(G, n, D)``."""
        widths = [stop - start for start, stop in segments]
        if not is_one_piece(sum(widths) * positions.shape[1] * self.dim, self.device):
            return torch.stack([self._time_sum(segment, places) for segment, places in zip(segments, positions)])
        rows = [_rows(segment, places, self.length) for segment, places in zip(segments, positions)]
        tokens = self.tokens(upload(torch.cat(rows), self.device))
        return torch.stack([frames.sum(dim=0) for frames in tokens.split(widths)])

    def _time_sum(self, segment: Segment, places: Tensor) -> Tensor:
        """The same of one segment, some positions at a time: ``(n, D)``."""
        each = (segment[1] - segment[0]) * self.dim
        parts = [
            self.tokens(upload(_rows(segment, places[piece], self.length), self.device)).sum(dim=0)
            for piece in pieces(len(places), each, self.device)
        ]
        return torch.cat(parts)

    def similarity(self, segments: Sequence[Segment]) -> Tensor:
        """Mean cosine over all pairs of a segment's frames, per position (PruneVid, equation 3).

        A zero token has cosine 0 to every other. Of a single frame there are no pairs: -inf, below any threshold.

        Args:
            segments: frames ``[start, stop)`` of each, in order, without gaps.

        Returns:
            ``(S, L)`` fp32, on the CPU (this waits for the device, once).
        """
        widths = torch.tensor([stop - start for start, stop in segments], device="cpu")
        found = [
            self._resultants(segments, piece) for piece in pieces(self.length, self.frames * self.dim, self.device)
        ]
        # |sum of unit vectors|^2 counts each ordered pair once, and each nonzero token with itself.
        squared, nonzero = torch.cat(found, dim=2).cpu()
        pairs = (widths * (widths - 1))[:, None]
        return torch.where(pairs > 0, (squared - nonzero) / pairs, -torch.inf).float()

    def _resultants(self, segments: Sequence[Segment], positions: slice) -> Tensor:
        """Per segment and position the squared length of the sum of unit vectors, and how many there are, fp64."""
        tokens = self._read(self._features[:, positions])
        norms = torch.linalg.vector_norm(tokens, dim=2)
        tokens *= torch.where(norms > 0, norms.reciprocal(), 0)[:, :, None]
        sums = torch.stack([tokens[start:stop].sum(dim=0) for start, stop in segments])
        running = (norms > 0).cumsum(dim=0)
        until = torch.stack([running[stop - 1] for _, stop in segments])
        until[1:] -= until[:-1].clone()
        return torch.stack([sums.double().square_().sum(dim=2), until.double()])

    def _read(self, piece: Tensor) -> Tensor:
        return (piece * self._factor).float()


def _rows(segment: Segment, places: Tensor, length: int) -> Tensor:
    """Raster places ``(W, n)`` of a segment's tokens at ``places`` ``(n,)`` of each of its frames."""
    return torch.arange(*segment, device=places.device)[:, None] * length + places
