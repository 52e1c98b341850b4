# SPDX-License-Identifier: Apache-2.0
"""Which tokens stand in a batch of shortened rows, and how the next, shorter batch is gathered from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Gather:
    """Rows of different lengths gathered into one batch, padded on the left.

    Args:
        index: ``(B, K)`` int64 slots of the longer batch; padding slots point at some slot that is not kept.
        valid: ``(B, K)`` bool, False at padding.
        real: tokens of each row, padding not counted (known without reading ``valid``).
    """

    index: Tensor
    valid: Tensor
    real: list[int]

    def take(self, x: Tensor, batch_dim: int = 0, token_dim: int = 1) -> Tensor:
        """The kept tokens of ``x``, whose ``batch_dim`` and ``token_dim`` are B (or 1) and the longer length."""
        if len(self.index) == 1 and x.shape[batch_dim] == 1:  # whole rows are copied, no index an element
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
class Slots:
    """What stands in each slot of a batch.

    Args:
        columns: ``(B, S)`` int64 logical column (place in the unshortened sequence) of each slot's token.
        valid: ``(B, S)`` bool, False at padding.
        real: tokens of each row, padding not counted (known without reading ``valid``).
        mass: ``(B, S)`` fp32, how many tokens each stands for in attention; None: one each.
    """

    columns: Tensor
    valid: Tensor
    real: list[int]
    mass: Tensor | None = None

    @classmethod
    def start(cls, valid: Tensor, first_column: int, real: list[int]) -> Slots:
        """The unshortened batch of ``(B, L)`` new tokens that begin at logical column ``first_column``."""
        columns = torch.arange(valid.shape[1], device=valid.device) + first_column
        return cls(columns.expand_as(valid), valid, real)

    def __len__(self) -> int:
        return self.columns.shape[1]

    @property
    def is_padded(self) -> bool:
        """Whether any slot is padding."""
        return min(self.real) < len(self)

    @property
    def padding_mask(self) -> Tensor | None:
        """``valid``, or None where no slot is padding."""
        return self.valid if self.is_padded else None

    def after(self, gather: Gather) -> Slots:
        """What stands in the gathered, shorter batch."""
        # Padding points at some slot that is gone; a mass of one adds log 1 = 0 to a key that is masked anyway.
        mass = None if self.mass is None else torch.where(gather.valid, self.mass.gather(1, gather.index), 1.0)
        return Slots(self.columns.gather(1, gather.index), gather.valid, gather.real, mass)

    def beside(self, later: Slots) -> Slots:
        """These slots followed by ``later``'s."""
        mass = None
        if self.mass is not None or later.mass is not None:
            mass = torch.cat([self.masses(), later.masses()], dim=1)
        return Slots(
            torch.cat([self.columns, later.columns], dim=1),
            torch.cat([self.valid, later.valid], dim=1),
            [mine + other for mine, other in zip(self.real, later.real)],
            mass,
        )

    def masses(self) -> Tensor:
        """``(B, S)`` fp32 mass of each slot, ones where nothing stands for more than itself."""
        return torch.ones_like(self.columns, dtype=torch.float32) if self.mass is None else self.mass

    def with_mass(self, row: int, places: Tensor, mass: Tensor) -> Slots:
        """The same slots, of which those at ``places`` ``(K,)`` of one row stand for ``mass`` ``(K,)`` tokens."""
        masses = self.masses().clone()
        masses[row, places] = mass.to(masses.device)
        return replace(self, mass=masses)

    def keep(self, stays: Tensor, real: list[int]) -> Gather:
        """Gather the slots where ``stays`` ``(B, S)`` holds; ``real`` says how many those are in each row."""
        stays = stays & self.valid
        # Shorter rows are padded on the left, as the library pads prompts: the last slot of a row is its last token, so
        # its logits are still the last ones, and what is decoded follows without a gap.
        order = torch.argsort(stays.to(torch.uint8), dim=1, stable=True)  # dropped first, kept last, each in order
        index = order[:, order.shape[1] - max(real) :]
        return Gather(index, stays.gather(1, index), real)
