# SPDX-License-Identifier: Apache-2.0
"""Where the videos and images of a Qwen2.5-VL prompt stand, read from its ids and M-RoPE positions alone."""

from __future__ import annotations

from torch import Tensor

from tokenprune.adapter import Prompt, VisualSpan
from tokenprune.errors import UnsupportedModeError


def visual_boundaries(prompt: Prompt, placeholders: dict[str, int]) -> list[list[VisualSpan]]:
    """Per row its videos and images: each run of one placeholder id is one item.

    H and W are the spans of the run's h and w positions, T is what is left; raster order is checked position by
    position, because a run whose positions do not form a grid would be pruned at the wrong places.

    Args:
        prompt: ids and positions of one prefill.
        placeholders: modality -> placeholder id.

    Raises:
        UnsupportedModeError: there are visual tokens without M-RoPE positions (``mm_token_type_ids`` missing), or
            positions that form no grid.
    """
    ids, valid = prompt.input_ids.cpu(), prompt.valid.cpu()
    modality_of = {placeholder: modality for modality, placeholder in placeholders.items()}
    if not any(bool((ids == placeholder).any()) for placeholder in modality_of):
        return [[] for _ in ids]
    if prompt.position_ids is None or prompt.position_ids.ndim != 3:
        raise UnsupportedModeError(
            "the prompt has visual tokens but no M-RoPE positions; pass the processor's mm_token_type_ids and grids"
        )
    positions = prompt.position_ids[-3:].cpu().expand(3, len(ids), -1)
    rows: list[list[VisualSpan]] = []
    for row, (row_ids, row_valid) in enumerate(zip(ids, valid)):
        spans: list[VisualSpan] = []
        for start, stop in _runs(row_ids.where(row_valid, row_ids.new_tensor(-1)), tuple(modality_of)):
            modality = modality_of[int(row_ids[start])]
            spans.append(_span(modality, positions[:, row, start:stop], start, row))
        rows.append(spans)
    return rows


def _runs(ids: Tensor, wanted: tuple[int, ...]) -> list[tuple[int, int]]:
    """``[start, stop)`` of each maximal run of one of the ids in ``wanted``."""
    edges = [0, *(ids.diff().nonzero().squeeze(1) + 1).tolist(), len(ids)]
    return [(start, stop) for start, stop in zip(edges, edges[1:]) if start < stop and int(ids[start]) in wanted]


def _span(modality: str, positions: Tensor, start: int, row: int) -> VisualSpan:
    count = positions.shape[1]
    time, height, width = (axis - axis.min() for axis in positions)
    rows, columns = int(height.max()) + 1, int(width.max()) + 1
    frames, rest = divmod(count, rows * columns)
    cell = height * columns + width
    in_raster_order = rest == 0 and bool((cell.view(frames, -1) == cell.new_ones(rows * columns).cumsum(0) - 1).all())
    if not in_raster_order or not bool((time.view(frames, -1) == time.view(frames, -1)[:, :1]).all()):
        raise UnsupportedModeError(
            f"the {count} {modality} tokens at column {start} of row {row} do not stand on a (T, H, W) grid of M-RoPE "
            "positions; pass the processor's mm_token_type_ids and grids, and put text between two videos"
        )
    return VisualSpan(modality, (frames, rows, columns), cell.new_ones(count).cumsum(0) - 1 + start)
