# SPDX-License-Identifier: Apache-2.0
"""Blocks of frames, and parts of frames, that are decided on their own because all their pairs are compared."""

from __future__ import annotations

import itertools

import torch

from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.tokens import VisualTokens


def check_frames(name: str, value: int) -> None:
    """Raise :class:`InvalidValueError` unless ``value`` is a number of frames."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidValueError(f"{name} must be an integer of at least 1, got {shown(value)}")


def block_sizes(tokens: VisualTokens, frames: int, most: int) -> list[int]:
    """How many tokens each block has, in order; a block has at least one.

    Waits for the device where tokens were merged or dropped before.

    Args:
        tokens: of one video or image.
        frames: frames that a block has at most.
        most: tokens that it has at most: blocks take fewer frames, or parts of one, of nearly one size, to keep to it.
    """
    length, cells = tokens.grid[0], tokens.grid[1] * tokens.grid[2]
    fit = max(1, min(frames, most // cells))
    edges = [*range(0, length, fit), length]
    found = [edge * cells for edge in edges]
    if not tokens.is_full_grid and tokens.places is not None:
        found = torch.searchsorted(tokens.places, tokens.places.new_tensor(found)).tolist()
    sizes: list[int] = []
    for start, stop in itertools.pairwise(found):
        size, parts = stop - start, -(-(stop - start) // most)
        sizes += [size * (part + 1) // parts - size * part // parts for part in range(parts)]
    return sizes
