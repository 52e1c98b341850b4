# SPDX-License-Identifier: Apache-2.0
"""Token features as numbers that may be squared and compared: in fp32, near 1, a piece at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from tokenprune.batching import pieces
from tokenprune.device import upload, where_fp64_is
from tokenprune.errors import InvalidValueError

RESOLUTION = 1e-6
"""Cosines closer than this are equal: fp32 cannot tell them apart, and what stands still differs by that much."""

_EXPONENTS = {torch.float32: (-120, 126), torch.float64: (-1000, 1020)}  # 2**-e is a normal number for these e


@contextmanager
def undisturbed(device: torch.device) -> Generator[None]:
    """Inside, neither gradients nor autocast have a say in what is computed on the device."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def power_of_two(features: Tensor) -> tuple[Tensor, Tensor]:
    """The factor ``(1,)`` that brings the largest component near 1, and whether all are finite ``()``.

    No square of what is scaled by it overflows, and no mantissa changes, so equal stays equal. Does not wait for the
    device.
    """
    wide = torch.float64 if features.dtype == torch.float64 else torch.float32
    low, high = torch.aminmax(features)  # NaN if any feature is
    largest = torch.maximum(-low, high)
    _, exponent = torch.frexp(largest.to(wide))
    # One dimension, for a number without any would not lift bf16 features to fp32 when they are multiplied.
    factor = torch.ldexp(torch.ones(1, dtype=wide, device=features.device), -exponent.clamp(*_EXPONENTS[wide]))
    return factor, torch.isfinite(largest)


class Points:
    """``(N, D)`` features, read in fp32 and scaled by :func:`power_of_two`.

    Next to the largest component, components below some 1e-19 count as zero. On a device without fp64 they are read
    on the CPU.

    Attributes:
        factor: ``(1,)`` by which they are scaled.

    Raises:
        InvalidValueError: features without components, or that hold NaN or infinity (this waits for the device).
    """

    def __init__(self, features: Tensor) -> None:
        if features.shape[1] == 0:
            raise InvalidValueError("visual token features must have at least one component")
        self._features = where_fp64_is(features)
        self.count, self.dim = features.shape
        self.device = self._features.device
        self.factor, is_finite = power_of_two(self._features)
        if not bool(is_finite):
            raise InvalidValueError("visual token features must be finite, but they hold NaN or infinity")

    @property
    def unit(self) -> Tensor:
        """``(1,)`` fp64, the squared distance of two read tokens that lie ``sqrt(D)`` apart as features."""
        return self.factor.double().square() * self.dim

    def read(self, rows: slice | Tensor) -> Tensor:
        """``(n, D)`` fp32, contiguous and free to be written to."""
        return (self._features[rows] * self.factor).float().contiguous()

    def units(self) -> Tensor:
        """``(N, D)`` fp32 of length 1; what is zero stays zero."""
        units = torch.empty(self.count, self.dim, device=self.device)
        for piece in pieces(self.count, self.dim, self.device):
            part = self.read(piece)
            units[piece] = part * inverse(part.square().sum(dim=1).sqrt())[:, None]
        return units

    def cosines(self, frames: list[int], others: list[int], length: int) -> Tensor:
        """``(n, length)`` cosine of each token of n frames to the token at its place in another frame.

        A zero token has cosine 0 to everything. Equal tokens have equal cosines to the last bit but one.

        Args:
            frames: their numbers.
            others: the number of the frame that each is compared with.
            length: tokens of a frame.
        """
        places = torch.arange(length, device="cpu")
        parts = [torch.empty(0, length, device=self.device)]
        for piece in pieces(len(frames), 3 * length * self.dim, self.device):
            one, other = (self._frames(numbers[piece], places) for numbers in (frames, others))
            lengths = [inverse((x * x).sum(dim=1).sqrt()) for x in (one, other)]
            parts.append(((one * other).sum(dim=1) * lengths[0] * lengths[1]).view(-1, length))
        return torch.cat(parts)

    def _frames(self, frames: list[int], places: Tensor) -> Tensor:
        rows = torch.tensor(frames, device="cpu")[:, None] * len(places) + places
        return self.read(upload(rows.flatten(), self.device))


def inverse(values: Tensor) -> Tensor:
    """``1 / values``, and 0 for 0."""
    return torch.where(values > 0, values.reciprocal(), torch.zeros_like(values))


def stepped(values: Tensor, resolution: float = RESOLUTION) -> Tensor:
    """Values in whole steps of ``resolution``, so that those that differ by rounding only are equal."""
    return (values.double() / resolution).round()
