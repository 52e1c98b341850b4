# SPDX-License-Identifier: Apache-2.0
"""Where Qwen2.5-VL's vision tower can be read, and the order in which it runs its tokens: window by window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tokenprune.hf.encoder import Grid, VisionEncoder


def vision_encoder(tower: Any) -> VisionEncoder | None:
    """The tower and the attention of its last block that sees whole frames; None where it has no such block."""
    whole = [index for index in tower.fullatt_block_indexes if index < len(tower.blocks)]
    if not whole:
        return None
    side = int(tower.spatial_merge_size)
    window = int(tower.window_size) // side // int(tower.patch_size)

    def order(grids: Sequence[Grid]) -> Tensor:
        return window_order(grids, window)

    return VisionEncoder(tower, tower.blocks[max(whole)].attn, side, order)


def window_order(grids: Sequence[Grid], side: int) -> Tensor:
    """``(N,)`` int64: the raster index of the token that stands at each place.

    Frame by frame, windows in raster order, and so the tokens of each; those at the right and lower border are smaller.

    >>> window_order([(1, 2, 3)], side=2).tolist()
    [0, 1, 3, 4, 2, 5]

    Args:
        grids: ``(T, H, W)`` of the tokens of each video or image.
        side: tokens along each side of a window.
    """
    orders: list[Tensor] = []
    start = 0
    for frames, height, width in grids:
        row, column = torch.arange(height).unsqueeze(1), torch.arange(width)
        across = -(-width // side)
        window = (row // side) * across + column // side
        frame = torch.argsort(window.flatten(), stable=True)
        cells = height * width
        orders.append((torch.arange(frames).unsqueeze(1) * cells + frame).flatten() + start)
        start += frames * cells
    return torch.cat(orders)
