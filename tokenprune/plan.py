# SPDX-License-Identifier: Apache-2.0
"""The algebra of token plans: what happens to N tokens, decided once and applied alike to everything they carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tokenprune.errors import PlanError

if TYPE_CHECKING:
    from tokenprune.tokens import VisualTokens


@dataclass(frozen=True, eq=False)
class TokenPlan:
    """What happens to N tokens: K anchors go on, every other token is merged into an anchor or dropped.

    Pruning and merging are one noun: a pruning is a plan in which only anchors are assigned.

    Args:
        anchors: ``(K,)`` int64, strictly increasing indices of the tokens that go on.
        assign: ``(N,)`` int64, the place among the K that a token is merged into, or -1 for dropped; an anchor
            maps to its own place.
        weights: ``(N,)`` weights >= 0 of the mix (default: all ones, the plain mean).
        blocks: ``(K,)`` int64 label of the block each anchor came from (a segment's static block, a frame), for
            selectors that share a budget over blocks; default: none known.
        segments: frames ``(start, stop)`` that a merger took together, in order, for those who look at the plan;
            nothing is computed from them.

    Only shapes and dtypes are checked here (no device synchronisation); :meth:`validate` checks the values.
    """

    anchors: Tensor
    assign: Tensor
    weights: Tensor | None = None
    blocks: Tensor | None = None
    segments: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        for name, tensor in (("anchors", self.anchors), ("assign", self.assign)):
            if tensor.ndim != 1 or tensor.dtype != torch.int64:
                raise PlanError(f"{name} must be a 1-D int64 tensor, got {tensor.dtype} {tuple(tensor.shape)}")
        if len(self.anchors) > len(self.assign):
            raise PlanError(f"a plan over {len(self.assign)} tokens cannot keep {len(self.anchors)} anchors")
        if self.weights is not None and self.weights.shape != self.assign.shape:
            raise PlanError(f"weights must have shape {tuple(self.assign.shape)}, got {tuple(self.weights.shape)}")
        if self.weights is not None and not self.weights.is_floating_point():
            raise PlanError(f"weights must be floating point, got {self.weights.dtype}")
        if self.blocks is not None and self.blocks.shape != self.anchors.shape:
            raise PlanError(f"blocks must have shape {tuple(self.anchors.shape)}, got {tuple(self.blocks.shape)}")
        if self.blocks is not None and self.blocks.dtype != torch.int64:
            raise PlanError(f"blocks must be int64, got {self.blocks.dtype}")

    @classmethod
    def identity(cls, total: int, device: torch.device | str | None = None) -> TokenPlan:
        """The plan that keeps all ``total`` tokens as they are."""
        everything = torch.arange(total, device=device)
        return cls(anchors=everything, assign=everything)

    @classmethod
    def keeping(cls, anchors: Tensor, total: int) -> TokenPlan:
        """The pruning that keeps the tokens at ``anchors`` ``(K,)``, sorted and unique, and drops the others."""
        assign = torch.full((total,), -1, dtype=torch.int64, device=anchors.device)
        assign[anchors] = torch.arange(len(anchors), device=anchors.device)
        return cls(anchors=anchors, assign=assign)

    @property
    def total(self) -> int:
        """N, the number of tokens the plan is about."""
        return len(self.assign)

    @property
    def kept(self) -> int:
        """K, the number of tokens that go on."""
        return len(self.anchors)

    @property
    def is_identity(self) -> bool:
        """Whether every token goes on; sorted unique anchors that are as many as the tokens leave no other plan."""
        return self.kept == self.total

    def validate(self) -> TokenPlan:
        """Check the laws of a plan by value (this waits for the device) and return the plan.

        Raises:
            PlanError: anchors not strictly increasing or out of range, an anchor not mapped to its own place, a place
                out of range, a negative or non-finite weight, or an anchor whose weights sum to zero.
        """
        anchors, assign = self.anchors.cpu(), self.assign.cpu()
        if self.kept and (int(anchors[0]) < 0 or int(anchors[-1]) >= self.total or bool((anchors.diff() <= 0).any())):
            raise PlanError(f"anchors must be strictly increasing indices in [0, {self.total}), got {anchors.tolist()}")
        if not torch.equal(assign[anchors], torch.arange(self.kept)):
            raise PlanError("an anchor must be assigned to its own place")
        if self.total and (int(assign.min()) < -1 or int(assign.max()) >= self.kept):
            raise PlanError(f"assign must hold places in [-1, {self.kept}), got {assign.tolist()}")
        if self.weights is not None:
            weights = self.weights.cpu().double()
            if bool((~torch.isfinite(weights)).any()) or bool((weights < 0).any()):
                raise PlanError("weights must be finite and not negative")
            merged = assign >= 0
            mass = torch.zeros(self.kept, dtype=torch.float64).index_add_(0, assign[merged], weights[merged])
            if bool((mass <= 0).any()):
                raise PlanError("the weights of the tokens merged into an anchor must not sum to zero")
        return self

    def mix(self, x: Tensor) -> Tensor:
        """Weighted mean of the tokens merged into each anchor, ``(N, ...) -> (K, ...)``, in ``x``'s dtype.

        Computed in fp32 (fp64 for fp64). A token alone in its place passes through unchanged, bit for bit.

        Raises:
            PlanError: ``x`` does not have N rows, or is not floating point.
        """
        self._check_rows(x, dim=0)
        if not x.is_floating_point():
            raise PlanError(f"only floating-point tensors can be mixed, got {x.dtype}")
        if self.is_identity:
            return x
        members, starts, counts = self._groups()
        own = x.index_select(0, self.anchors)
        if len(members) == self.kept:  # nothing was merged
            return own
        wide = torch.promote_types(x.dtype, torch.float32)
        flat = x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)
        shares = self._shares(members, starts, counts, wide)
        mixed = torch.nn.functional.embedding_bag(members, flat.to(wide), starts, mode="sum", per_sample_weights=shares)
        alone = (counts == 1).view(-1, *[1] * (x.ndim - 1))
        return torch.where(alone, own, mixed.to(x.dtype).reshape(own.shape))

    def pick(self, x: Tensor, dim: int = 0) -> Tensor:
        """The anchors' own rows of ``x`` along ``dim`` (positions, rotary embeddings, masks, ids, keys, values)."""
        self._check_rows(x, dim)
        return x if self.is_identity else x.index_select(dim, self.anchors)

    def sum(self, x: Tensor) -> Tensor:
        """Sum over the tokens merged into each anchor, ``(N,) -> (K,)`` (sizes); exact for integers."""
        self._check_rows(x, dim=0)
        if self.is_identity:
            return x
        members, starts, counts = self._groups()
        return _sum_groups(x[members], starts, counts).to(x.dtype)

    def apply(self, tokens: VisualTokens) -> VisualTokens:
        """Apply the plan to visual tokens: features are mixed, sizes summed, places picked."""
        return tokens.through(self)

    def then(self, after: TokenPlan) -> TokenPlan:
        """This plan followed by ``after`` (a plan over this one's K tokens), as one plan over the N.

        Exact for pick and sum. For mix it equals the two steps when ``after``'s weights are multiplied by the mass
        that this plan gave each token; a plain mean of plain means is another, two-step operator.
        """
        if after.total != self.kept:
            raise PlanError(f"a plan over {after.total} tokens cannot follow one that keeps {self.kept}")
        if after.is_identity:
            blocks = _first(after.blocks, self.blocks)
            return TokenPlan(self.anchors, self.assign, self.weights, blocks, after.segments or self.segments)
        place = self.assign.clamp(min=0)
        merged = self.assign >= 0
        assign = torch.where(merged, after.assign[place], -1) if self.kept else self.assign
        weights = self.weights
        if after.weights is not None:
            mine = torch.ones_like(after.weights[place]) if weights is None else weights
            weights = torch.where(merged, mine * after.weights[place], torch.zeros_like(mine))
        blocks = after.blocks
        if blocks is None and self.blocks is not None:
            blocks = self.blocks[after.anchors]
        return TokenPlan(self.anchors[after.anchors], assign, weights, blocks, after.segments or self.segments)

    def lift(self, columns: Tensor, length: int) -> TokenPlan:
        """The same plan over a whole prompt row of ``length`` tokens; every token outside ``columns`` maps to itself.

        Args:
            columns: ``(N,)`` strictly increasing columns of the plan's tokens in the row.
            length: number of tokens of the row.
        """
        if len(columns) != self.total:
            raise PlanError(f"a plan over {self.total} tokens cannot be lifted to {len(columns)} columns")
        stays = torch.ones(length, dtype=torch.bool, device=columns.device)
        stays[columns] = False
        stays[columns[self.anchors]] = True
        place = stays.cumsum(0) - 1
        assign = place.clone()
        landing = place[columns[self.anchors]]
        if self.kept:
            assign[columns] = torch.where(self.assign >= 0, landing[self.assign.clamp(min=0)], -1)
        else:
            assign[columns] = -1
        weights = None
        if self.weights is not None:
            weights = torch.ones(length, dtype=self.weights.dtype, device=columns.device)
            weights[columns] = self.weights
        return TokenPlan(stays.nonzero().squeeze(1), assign, weights)

    def _groups(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens that stay, grouped by place: their indices ``(M,)``, each group's start and size ``(K,)``.

        Waits for the device, once, to learn M.
        """
        order = torch.argsort(self.assign, stable=True)
        counts = torch.bincount(self.assign + 1, minlength=self.kept + 1)
        dropped, counts = int(counts[0]), counts[1:]
        return order[dropped:], counts.cumsum(0) - counts, counts

    def _shares(self, members: Tensor, starts: Tensor, counts: Tensor, dtype: torch.dtype) -> Tensor:
        """``(M,)`` weight of each member as a fraction of its group's."""
        if self.weights is None:
            return counts.to(dtype).reciprocal()[self.assign[members]]
        weights = self.weights[members].double()
        return (weights / _sum_groups(weights, starts, counts)[self.assign[members]]).to(dtype)

    def _check_rows(self, x: Tensor, dim: int) -> None:
        if x.shape[dim] != self.total:
            raise PlanError(f"a plan over {self.total} tokens cannot be applied to {x.shape[dim]}")


def _first(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return one if one is not None else other


def _sum_groups(values: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
    """Sum of each run of ``values`` ``(M,)``, without atomics, so always the same bits; floats in fp64."""
    if values.is_floating_point():
        rows = torch.arange(len(values), device=values.device)
        return torch.nn.functional.embedding_bag(rows, values.double().unsqueeze(1), starts, mode="sum").squeeze(1)
    running = torch.nn.functional.pad(values.cumsum(0), (1, 0))
    return running[starts + counts] - running[starts]
