# SPDX-License-Identifier: Apache-2.0
"""Cosines of features of any scale and dtype, in fp32, on a lattice on which copies tie exactly.

Rounding makes the cosine of a vector and its copy 1 give or take 1e-7, which would let noise break the ties of still
pictures. So cosines are rounded to multiples of :data:`STEP`, and of equal ones the lower index is taken.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from tokenprune.cluster import fp32_products_are_rounded
from tokenprune.device import WITHOUT_FP64
from tokenprune.tokens import VisualTokens

STEP = 2.0**-20
"""Cosines, and scores made of them, this close to each other are equal."""


@contextmanager
def deciding(tokens: VisualTokens) -> Generator[None]:
    """Inside, nothing is recorded for gradients, and autocast does not change the precision.

    Raises:
        InvalidValueError: the features hold NaN or infinity (this waits for the device).
    """
    with torch.no_grad(), torch.autocast(tokens.features.device.type, enabled=False):
        tokens.require_finite()
        yield


def resolved(values: Tensor) -> Tensor:
    """``values`` rounded to multiples of :data:`STEP`."""
    return (values / STEP).round() * STEP


def scaled(features: Tensor) -> Tensor:
    """``(N, D)`` finite features in fp32, all divided by the largest component, so that no square overflows."""
    wide = features.contiguous() if features.dtype == torch.float64 else features.contiguous().float()
    largest = torch.maximum(*(end.abs() for end in torch.aminmax(wide)))
    return (wide / torch.where(largest > 0, largest, 1)).float()


def units(rows: Tensor) -> Tensor:
    """``(..., D)`` rows at length 1, in fp32; a zero row stays zero. Any scale, each row its own.

    >>> units(torch.tensor([[3e30, 4e30], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    wide = rows.contiguous() if rows.dtype == torch.float64 else rows.contiguous().float()
    largest = torch.maximum(wide.amax(dim=-1, keepdim=True), -wide.amin(dim=-1, keepdim=True))
    near_one = (wide / torch.where(largest > 0, largest, 1)).float()
    length = torch.linalg.vector_norm(near_one, dim=-1, keepdim=True)
    return near_one / torch.where(length > 0, length, 1)


def cosines_of(units_a: Tensor, units_b: Tensor) -> Tensor:
    """Resolved cosines of unit rows ``(..., D)`` with the unit rows at the same places of the other: ``(...)``."""
    return resolved((units_a * units_b).sum(dim=-1))


def all_cosines(units_a: Tensor, units_b: Tensor) -> Tensor:
    """Resolved cosines of all unit rows ``(..., n, D)`` with all ``(..., m, D)``: ``(..., n, m)``."""
    return resolved(multipliable(units_a) @ multipliable(units_b).transpose(-1, -2)).float()


def multipliable(rows: Tensor) -> Tensor:
    """The fp32 rows, or in fp64 where the user lets fp32 products run in TF32 or bf16: the setting is not ours."""
    rounded = rows.device.type not in WITHOUT_FP64 and fp32_products_are_rounded(rows.device)
    return rows.double() if rounded else rows


def min_max(values: Tensor) -> Tensor:
    """Each row of ``values`` ``(..., n)`` shifted and scaled to [0, 1]; where all are equal up to rounding, to 0."""
    low, high = values.amin(dim=-1, keepdim=True), values.amax(dim=-1, keepdim=True)
    spread = high - low
    differs = spread > 8 * STEP * torch.maximum(low.abs(), high.abs())
    return torch.where(differs, (values - low) / torch.where(differs, spread, 1), 0)
