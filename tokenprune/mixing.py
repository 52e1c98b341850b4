# SPDX-License-Identifier: Apache-2.0
"""One token that feeds several kept ones: a sparse matrix over the tokens of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenprune.errors import PlanError


@dataclass(frozen=True, eq=False)
class Mixing:
    """A sparse matrix that says what each kept token becomes, for methods that let one token feed several.

    Args:
        rows: ``(M,)`` int64 places among the K kept tokens; a place without an entry keeps its anchor's features.
        columns: ``(M,)`` int64 indices among the N tokens.
        weights: ``(M,)`` floating point, as they are: nothing normalises them.

    >>> both = Mixing(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([0.5, 0.5]))
    >>> both.mix(torch.tensor([[1.0], [3.0]]), anchors=torch.tensor([0]))
    tensor([[2.]])
    """

    rows: Tensor
    columns: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        for name, tensor in (("rows", self.rows), ("columns", self.columns)):
            if tensor.ndim != 1 or tensor.dtype != torch.int64:
                raise PlanError(f"mixing {name} must be a 1-D int64 tensor, got {tensor.dtype} {tuple(tensor.shape)}")
        if not self.weights.is_floating_point():
            raise PlanError(f"mixing weights must be floating point, got {self.weights.dtype}")
        if not self.rows.shape == self.columns.shape == self.weights.shape:
            raise PlanError("mixing rows, columns and weights must have one length")

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and weights."""
        return self.rows, self.columns, self.weights

    def moved(self, rows: int, columns: Tensor | int) -> Mixing:
        """The same over more tokens: places ``rows`` further on, indices looked up in ``columns`` or moved by it."""
        moved = self.columns + columns if isinstance(columns, int) else columns[self.columns]
        return Mixing(self.rows + rows, moved, self.weights)

    def to(self, device: torch.device) -> Mixing:
        """The same with its tensors on ``device``."""
        return Mixing(*(part.to(device) for part in self.parts))

    def mix(self, x: Tensor, anchors: Tensor) -> Tensor:
        """``(N, D) -> (K, D)`` for the tokens kept at ``anchors`` ``(K,)``; entries are summed in their order."""
        rows, order = torch.sort(self.rows, stable=True)
        edges = torch.searchsorted(rows, torch.arange(len(anchors) + 1, device=rows.device))
        members, weights = self.columns[order], self.weights[order].to(x.dtype)
        mixed = torch.nn.functional.embedding_bag(members, x, edges[:-1], mode="sum", per_sample_weights=weights)
        return torch.where((edges.diff() > 0)[:, None], mixed, x.index_select(0, anchors))


def joined(mixings: Sequence[Mixing]) -> Mixing | None:
    """The entries of all of them as one; None where there is none."""
    if not mixings:
        return None
    return Mixing(*map(torch.cat, zip(*(mixing.parts for mixing in mixings))))
