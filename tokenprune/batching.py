# SPDX-License-Identifier: Apache-2.0
"""How much is computed at once: groups of points of nearly one size, padded to the largest, within a memory limit.

A GPU is given few large pieces, because each call costs it more than the work; a CPU pieces that stay in its caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

DISTANCE_BYTES = 256 * 2**20  # most that distances, and what is computed from them, take up at any moment
BYTES_A_PAIR = 24  # a distance in fp64, its masked copy, and indices


@dataclass(frozen=True)
class PieceLimits:
    """What may be computed at once on a kind of device.

    Args:
        point_bytes: fp32 copies of points, if one group (or one frame, one position) is not already more.
        wasted_products: multiplications that all padding of one call may cost; about what the time of a call is worth.
    """

    point_bytes: int
    wasted_products: int


CPU_LIMITS = PieceLimits(point_bytes=8 * 2**20, wasted_products=10**7)
DEVICE_LIMITS = PieceLimits(point_bytes=256 * 2**20, wasted_products=5 * 10**9)


def limits_of(device: torch.device) -> PieceLimits:
    """The limits for this device."""
    return CPU_LIMITS if device.type == "cpu" else DEVICE_LIMITS


def pieces(count: int, numbers_each: int, device: torch.device) -> Iterator[slice]:
    """Slices of ``range(count)`` whose fp32 copies, of ``numbers_each`` numbers a step, stay within the limit."""
    step = max(1, limits_of(device).point_bytes // (4 * max(1, numbers_each)))
    return (slice(start, min(count, start + step)) for start in range(0, count, step))


def is_one_piece(numbers: int, device: torch.device) -> bool:
    """Whether an fp32 copy of so many numbers stays within the limit."""
    return 4 * numbers <= limits_of(device).point_bytes


def batches(sizes: Sequence[int], dim: int, device: torch.device) -> Iterator[list[int]]:
    """Split groups into calls, the largest groups first; groups of equal size stay in their order.

    Args:
        sizes: number of points of each group, at least 1.
        dim: components of a point.
        device: where they are computed.

    Yields:
        Places in ``sizes`` of the groups of one call; the first is the largest.
    """
    limits = limits_of(device)
    call: list[int] = []
    most = wasted = 0
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        if call:
            wasted += (sizes[call[0]] ** 2 - sizes[place] ** 2) * dim
        if call and (len(call) >= most or wasted > limits.wasted_products):
            yield call
            call, wasted = [], 0
        if not call:
            most = _groups_at_once(sizes[place], dim, limits)
        call.append(place)
    if call:
        yield call


def _groups_at_once(points: int, dim: int, limits: PieceLimits) -> int:
    by_distance = DISTANCE_BYTES // (points * points * BYTES_A_PAIR)
    by_copy = limits.point_bytes // (points * max(dim, 1) * 4)
    return max(1, min(by_distance, by_copy))
