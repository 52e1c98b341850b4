# SPDX-License-Identifier: Apache-2.0
"""Sums and means over the tokens that share a place, without atomics: always the same bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenprune.batching import pieces
from tokenprune.device import where_fp64_is


@dataclass(frozen=True, eq=False)
class Groups:
    """N tokens grouped by place, the dropped ones last, as one more group: so nobody has to wait for their number.

    Args:
        kept: K, the number of places.
        members: ``(N,)`` the tokens, group by group.
        place: ``(N,)`` the group of each of them.
        starts: ``(K + 1,)`` where each group begins among them.
        counts: ``(K + 1,)`` how many tokens each holds.

    >>> Groups.by_place(torch.tensor([1, 0, 1, -1]), kept=2).sum(torch.tensor([1, 2, 3, 4]))
    tensor([2, 4])
    """

    kept: int
    members: Tensor
    place: Tensor
    starts: Tensor
    counts: Tensor

    @classmethod
    def by_place(cls, assign: Tensor, kept: int) -> Groups:
        """Groups of the tokens by ``assign`` ``(N,)``, places below ``kept`` or -1 for dropped."""
        place, members = torch.sort(torch.where(assign >= 0, assign, kept), stable=True)
        edges = torch.searchsorted(place, torch.arange(kept + 2, device=place.device))
        return cls(kept, members, place, edges[:-1], edges.diff())

    def sum(self, x: Tensor) -> Tensor:
        """``(N,) -> (K,)`` sums; exact for integers, floats in fp64."""
        return _sum_runs(x[self.members], self.starts)[: self.kept].to(x.dtype).to(x.device)

    def mean(self, x: Tensor, anchors: Tensor, weights: Tensor | None) -> Tensor:
        """``(N, D) -> (K, D)`` means by ``weights`` ``(N,)`` in fp32 or wider; a token alone passes bit for bit."""
        wide = torch.promote_types(x.dtype, torch.float32)
        shares = self._shares(weights, wide)
        mixed = torch.nn.functional.embedding_bag(
            self.members, x.to(wide), self.starts, mode="sum", per_sample_weights=shares
        )
        mixed = mixed[: self.kept].to(x.dtype)
        alone = (self.counts == 1)[:, None]
        for rows in pieces(self.kept, x.shape[1], x.device):  # a weight of 1 would still turn -0.0 into 0.0
            mixed[rows] = torch.where(alone[rows], x.index_select(0, anchors[rows]), mixed[rows])
        return mixed

    def _shares(self, weights: Tensor | None, dtype: torch.dtype) -> Tensor:
        """``(N,)`` weight of each member as a fraction of its group's."""
        if weights is None:
            return self.counts.to(dtype).reciprocal()[self.place]
        wide = where_fp64_is(weights[self.members]).double()
        starts, place = where_fp64_is(self.starts), where_fp64_is(self.place)
        return (wide / _sum_runs(wide, starts)[place]).to(dtype).to(weights.device)


def _sum_runs(values: Tensor, starts: Tensor) -> Tensor:
    """Sum of each run of ``values`` ``(N,)``; floats in fp64."""
    if values.is_floating_point():
        values, starts = where_fp64_is(values), where_fp64_is(starts)
        rows = torch.arange(len(values), device=values.device)
        return torch.nn.functional.embedding_bag(rows, values.double().unsqueeze(1), starts, mode="sum").squeeze(1)
    running = torch.nn.functional.pad(values.cumsum(0), (1, 0))
    ends = torch.nn.functional.pad(starts[1:], (0, 1), value=len(values))
    return running[ends] - running[starts]
