# SPDX-License-Identifier: Apache-2.0
"""Which tokens stand in a batch of shortened rows, and how the next, shorter batch is gathered from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths gathered into one batch, padded on the left.

    Args:
        index: ``(B, K)`` int64 places in the longer batch; padding slots point at some place that is not kept.
        valid: ``(B, K)`` bool, False at padding.
        real: tokens of each row, padding not counted (known without reading ``valid``).
    """

    index: Tensor
    valid: Tensor
    real: list[int]

    @property
    def is_padded(self) -> bool:
        """Whether any slot is padding."""
        return min(self.real) < self.index.shape[1]

    def gather(self, x: Tensor, batch_dim: int = 0, token_dim: int = 1) -> Tensor:
        """Take the kept tokens of ``x``, whose ``batch_dim`` and ``token_dim`` are B (or 1) and the longer length."""
        if len(self.index) == 1 and x.shape[batch_dim] == 1:
            return x.index_select(token_dim, self.index[0].to(x.device))
        shape = [1] * x.ndim
        shape[batch_dim], shape[token_dim] = self.index.shape
        index = self.index.to(x.device).reshape(shape)
        sizes = list(x.shape)
        sizes[batch_dim], sizes[token_dim] = self.index.shape
        if x.shape[batch_dim] != self.index.shape[0]:  # one row of positions that serves the whole batch
            x = x.expand([len(self.index) if dim == batch_dim else -1 for dim in range(x.ndim)])
        return x.gather(token_dim, index.expand(sizes))


@dataclass(frozen=True, eq=False)
class Layout:
    """What stands in each slot of a running batch.

    Args:
        columns: ``(B, S)`` int64 logical column (place in the unshortened sequence) of each slot's token.
        valid: ``(B, S)`` bool, False at padding.
        real: tokens of each row, padding not counted (known without reading ``valid``).
    """

    columns: Tensor
    valid: Tensor
    real: list[int]

    @classmethod
    def start(cls, valid: Tensor, first_column: int, real: list[int]) -> Layout:
        """The unshortened layout of ``(B, L)`` new tokens that begin at logical column ``first_column``."""
        columns = torch.arange(valid.shape[1], device=valid.device) + first_column
        return cls(columns.expand_as(valid), valid, real)

    @property
    def is_padded(self) -> bool:
        """Whether any slot is padding."""
        return min(self.real) < self.columns.shape[1]

    def after(self, ragged: Ragged) -> Layout:
        """The layout of the gathered, shorter batch."""
        return Layout(self.columns.gather(1, ragged.index), ragged.valid, ragged.real)

    def beside(self, later: Layout) -> Layout:
        """This layout's slots followed by ``later``'s."""
        return Layout(
            torch.cat([self.columns, later.columns], dim=1),
            torch.cat([self.valid, later.valid], dim=1),
            [mine + other for mine, other in zip(self.real, later.real)],
        )

    def keep(self, stays: Tensor, real: list[int]) -> Ragged:
        """Gather the slots where ``stays`` ``(B, S)`` holds; ``real`` says how many those are in each row."""
        stays = stays & self.valid
        order = torch.argsort(stays.to(torch.uint8), dim=1, stable=True)  # dropped first, kept last, each in order
        index = order[:, order.shape[1] - max(real) :]
        return Ragged(index, stays.gather(1, index), real)
