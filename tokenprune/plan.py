# SPDX-License-Identifier: Apache-2.0
"""The algebra of token plans: what happens to N tokens, decided once and applied alike to everything they carry."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from tokenprune.device import places_where
from tokenprune.errors import PlanError
from tokenprune.groups import Groups
from tokenprune.messages import shown
from tokenprune.mixing import Mixing, joined
from tokenprune.plan_laws import laws_of

T = TypeVar("T", covariant=True)


class Planned(Protocol[T]):
    """Something that a plan can be applied to as a whole: :class:`tokenprune.VisualTokens`."""

    def through(self, plan: TokenPlan) -> T: ...


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
        merges: False promises that no token but the anchors is assigned, which spares looking for others.
        scores: ``(N,)`` what the decision was made by, higher stays, for pictures; nothing is computed from it.
        mixing: what the kept tokens become, where one token feeds several; in place of ``weights`` and means.
            ``assign`` still names one home for each token.

    Only shapes and dtypes are checked here (no device synchronisation); :meth:`validate` checks the values.

    >>> plan = TokenPlan(anchors=torch.tensor([0, 2]), assign=torch.tensor([0, 0, 1, -1]))
    >>> plan.mix(torch.tensor([[1.0], [3.0], [5.0], [7.0]])), plan.sum(torch.ones(4, dtype=torch.int64))
    (tensor([[2.],
            [5.]]), tensor([2, 1]))
    """

    anchors: Tensor
    assign: Tensor
    weights: Tensor | None = None
    blocks: Tensor | None = None
    segments: tuple[tuple[int, int], ...] | None = None
    merges: bool = True
    scores: Tensor | None = None
    mixing: Mixing | None = None

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
        if self.scores is not None and self.scores.shape != self.assign.shape:
            raise PlanError(f"scores must have shape {tuple(self.assign.shape)}, got {tuple(self.scores.shape)}")
        if self.mixing is not None and self.weights is not None:
            raise PlanError("a plan mixes by its weights or by its mixing, not by both")

    @classmethod
    def identity(cls, total: int, device: torch.device | str | None = None) -> TokenPlan:
        """The plan that keeps all ``total`` tokens as they are."""
        everything = torch.arange(total, device=device)
        return cls(anchors=everything, assign=everything, merges=False)

    @classmethod
    def keeping(cls, anchors: Tensor, total: int) -> TokenPlan:
        """The pruning that keeps the tokens at ``anchors`` ``(K,)``, sorted and unique, and drops the others."""
        assign = torch.full((total,), -1, dtype=torch.int64, device=anchors.device)
        assign[anchors] = torch.arange(len(anchors), device=anchors.device)
        return cls(anchors=anchors, assign=assign, merges=False)

    @classmethod
    def merging(cls, home: Tensor, kept: int) -> TokenPlan:
        """The plan that merges each token into the token ``home`` ``(N,)``; an anchor's is itself, -1 drops it.

        Args:
            home: ``(N,)`` int64.
            kept: how many anchors there are, for counting them would wait for the device.
        """
        is_anchor = home == torch.arange(len(home), device=home.device)
        place = is_anchor.cumsum(0) - 1
        assign = torch.where(home >= 0, place[home.clamp(min=0)], -1)
        return cls(places_where(is_anchor, kept), assign)

    @classmethod
    def concatenate(cls, plans: Sequence[TokenPlan]) -> TokenPlan:
        """Plans over tokens that follow each other, as one plan over all of them; no two share a block."""
        if len(plans) == 1:
            return plans[0]
        kept, total = 0, 0
        anchors, assigns, weights, scores, mixings, blocks = [], [], [], [], [], []
        for plan in plans:
            anchors.append(plan.anchors + total)
            assigns.append(torch.where(plan.assign >= 0, plan.assign + kept, -1))
            weights.append(torch.ones_like(plan.assign, dtype=torch.float64) if plan.weights is None else plan.weights)
            scores.append(plan.scores)
            if plan.blocks is not None and plan.kept:  # labels go on after the highest so far
                blocks.append(plan.blocks + blocks[-1].amax() + 1 if blocks else plan.blocks)
            if plan.mixing is not None:
                mixings.append(plan.mixing.moved(kept, total))
            kept, total = kept + plan.kept, total + plan.total
        weighted = any(plan.weights is not None for plan in plans)
        if weighted and mixings:
            raise PlanError("plans with weights and plans with a mixing cannot be put together")
        return cls(
            torch.cat(anchors),
            torch.cat(assigns),
            torch.cat([w.double() for w in weights]) if weighted else None,
            None if any(plan.blocks is None for plan in plans) else torch.cat(blocks),
            merges=any(plan.merges for plan in plans),
            scores=None if any(s is None for s in scores) else torch.cat(scores),
            mixing=joined(mixings),
        )

    def split(self, counts: Sequence[int]) -> list[TokenPlan]:
        """What the plan does to the first ``counts[0]`` tokens, the next ``counts[1]``, and so on.

        A token merged into one elsewhere counts as dropped. Waits for the device once, where there are several.
        """
        edges = [0, *itertools.accumulate(counts)]
        if len(counts) == 1:
            return [self]
        kept = torch.searchsorted(self.anchors, self.anchors.new_tensor(edges)).tolist()
        return [
            self._part(*tokens, *places)
            for tokens, places in zip(itertools.pairwise(edges), itertools.pairwise(kept), strict=True)
        ]

    def _part(self, start: int, stop: int, first: int, last: int) -> TokenPlan:
        """Of tokens ``[start, stop)``, of which those at places ``[first, last)`` go on."""
        assign = self.assign[start:stop] - first
        return TokenPlan(
            self.anchors[first:last] - start,
            torch.where((assign >= 0) & (assign < last - first), assign, -1),
            None if self.weights is None else self.weights[start:stop],
            None if self.blocks is None else self.blocks[first:last],
            self.segments,
            self.merges,
            None if self.scores is None else self.scores[start:stop],
        )

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
        return self.kept == self.total and self.mixing is None

    @property
    def mixes(self) -> bool:
        """Whether a kept token's features may become others than its own."""
        return self.mixing is not None or (self.merges and not self.is_identity)

    def validate(self) -> TokenPlan:
        """Check the laws of a plan by value (this waits for the device, once) and return the plan.

        Raises:
            PlanError: anchors not strictly increasing or out of range, an anchor not mapped to its own place, a place
                out of range, a token merged where ``merges`` says none is, a negative or non-finite weight, or an
                anchor whose weights sum to zero.
        """
        laws = laws_of(self)
        if laws and not bool(torch.stack(list(laws.values())).all()):
            broken = next(law for law, holds in laws.items() if not bool(holds))
            raise PlanError(
                f"{broken}; got anchors {shown(self.anchors.tolist())}, assign {shown(self.assign.tolist())}"
            )
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
        if not self.mixes or not self.kept:
            return x.index_select(0, self.anchors)
        flat = x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)
        if self.mixing is not None:
            wide = torch.promote_types(x.dtype, torch.float32)
            mixed = self.mixing.mix(flat.to(wide), self.anchors).to(x.dtype)
        else:
            mixed = Groups.by_place(self.assign, self.kept).mean(flat, self.anchors, self.weights)
        return mixed.reshape(self.kept, *x.shape[1:])

    def pick(self, x: Tensor, dim: int = 0) -> Tensor:
        """The anchors' own rows of ``x`` along ``dim`` (positions, rotary embeddings, masks, ids, keys, values)."""
        self._check_rows(x, dim)
        return x if self.is_identity else x.index_select(dim, self.anchors)

    def sum(self, x: Tensor) -> Tensor:
        """Sum over the tokens merged into each anchor, ``(N,) -> (K,)`` (sizes); exact for integers."""
        self._check_rows(x, dim=0)
        if self.is_identity:
            return x
        if not self.merges:
            return x.index_select(0, self.anchors)
        return Groups.by_place(self.assign, self.kept).sum(x)

    def apply(self, tokens: Planned[T]) -> T:
        """Apply the plan to visual tokens: features are mixed, sizes summed, places picked."""
        return tokens.through(self)

    def then(self, after: TokenPlan) -> TokenPlan:
        """This plan followed by ``after`` (a plan over this one's K tokens), as one plan over the N.

        Exact for pick and sum; scores and mixing belong to one step and are left out.
        For mix it equals the two steps when ``after``'s weights are multiplied by the mass
        that this plan gave each token; a plain mean of plain means is another, two-step operator.
        """
        if after.total != self.kept:
            raise PlanError(f"a plan over {after.total} tokens cannot follow one that keeps {self.kept}")
        if after.kept == after.total:
            blocks = _first(after.blocks, self.blocks)
            segments = after.segments or self.segments
            return TokenPlan(self.anchors, self.assign, self.weights, blocks, segments, self.merges)
        if self.kept == self.total and self.weights is None:
            blocks = after.blocks if self.blocks is None or after.blocks is not None else self.blocks[after.anchors]
            return replace(after, blocks=blocks, segments=after.segments or self.segments, scores=None, mixing=None)
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
        segments, merges = after.segments or self.segments, self.merges or after.merges
        return TokenPlan(self.anchors[after.anchors], assign, weights, blocks, segments, merges)

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
        mixing = None
        if self.mixing is not None:
            mixing = Mixing(landing[self.mixing.rows], columns[self.mixing.columns], self.mixing.weights)
        anchors = places_where(stays, length - self.total + self.kept)
        return TokenPlan(anchors, assign, weights, merges=self.merges, mixing=mixing)

    def to(self, device: torch.device) -> TokenPlan:
        """The same plan with its tensors on ``device``."""
        tensors = {
            name: None if value is None else value.to(device)
            for name in ("anchors", "assign", "weights", "blocks", "scores")
            for value in (getattr(self, name),)
        }
        return replace(self, **tensors, mixing=self.mixing and self.mixing.to(device))

    def _check_rows(self, x: Tensor, dim: int) -> None:
        if x.shape[dim] != self.total:
            raise PlanError(f"a plan over {self.total} tokens cannot be applied to {x.shape[dim]}")


def _first(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return one if one is not None else other
