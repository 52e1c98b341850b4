# SPDX-License-Identifier: Apache-2.0
"""How new each frame is: what of its cells the frames before do not span. Used by GleanVID."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenprune import batching
from tokenprune.device import upload, where_fp64_is


@dataclass(frozen=True, eq=False)
class Cells:
    """The 2 x 2 cells of a frame's L places, partial at odd edges.

    Args:
        home: ``(L,)`` int64, the cell of each place.
        share: ``(C, L)`` fp32, 1 / size where a place is in a cell, else 0.
        sizes: ``(C,)`` fp32, places of each cell.
    """

    home: Tensor
    share: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, grid: tuple[int, int, int], device: torch.device) -> Cells:
        """The cells of a video's frames."""
        _, height, width = grid
        wide = (width + 1) // 2
        rows, columns = torch.arange(height, device="cpu") // 2, torch.arange(width, device="cpu") // 2
        home = (rows[:, None] * wide + columns).flatten()
        sizes = torch.bincount(home).float()
        share = torch.nn.functional.one_hot(home).T / sizes[:, None]
        return cls(*(upload(part, device) for part in (home, share, sizes)))

    def means(self, frames: Tensor) -> Tensor:
        """``(T, L, D) -> (T, C, D)`` means of the cells."""
        return self.share.to(frames.dtype) @ frames


def novelty(frames: Tensor, cells: Cells, epsilon: float) -> list[float]:
    """``R_t`` of each of the ``frames`` ``(T, L, D)``: residual lengths of its cells on all before, summed over places.

    The residual of ``z`` on ``H`` is ``sqrt(|z|^2 - b' G^-1 b)`` with ``G = HH' + epsilon tr(HH') / h`` and ``b = Hz``;
    that of frame 0 is ``|z|``. In fp64, for the difference is of nearly equal numbers. Waits for the device.
    """
    means = where_fp64_is(cells.means(frames)).transpose(0, 1)  # (C, T, D)
    count = len(frames)
    step = max(1, batching.DISTANCE_BYTES // (count * count * batching.BYTES_A_PAIR))
    found = [_residuals(part.double(), epsilon) for part in means.split(step)]
    return (torch.cat(found) * where_fp64_is(cells.sizes)[:, None]).sum(dim=0).tolist()


def _residuals(cells: Tensor, epsilon: float) -> Tensor:
    """``(C, T)`` residual lengths of ``(C, T, D)`` cells on the earlier of the same place."""
    products = cells @ cells.transpose(1, 2)
    squares = products.diagonal(dim1=1, dim2=2)
    lengths = [squares[:, 0]]
    for t in range(1, cells.shape[1]):
        ridge = epsilon * squares[:, :t].mean(dim=1)
        ridge = torch.where(ridge > 0, ridge, 1)  # nothing before but zeros: they explain nothing
        gram = products[:, :t, :t] + torch.diag_embed(ridge[:, None].expand(-1, t))
        towards = products[:, :t, t, None]
        explained = (towards * torch.linalg.solve(gram, towards)).sum(dim=(1, 2))
        lengths.append((squares[:, t] - explained).clamp(min=0))
    return torch.stack(lengths, dim=1).sqrt()
