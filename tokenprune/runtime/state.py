# SPDX-License-Identifier: Apache-2.0
"""The one state of a prefill's tokens: where each stands, and what has become of the visual ones.

Operators decide; :meth:`TokenState.step` turns their plans into one :class:`Step`; everything that travels with the
tokens is carried by that step, each tensor by its own rule, and nothing else shortens anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tokenprune.adapter import VisualSpan
from tokenprune.carried import GATHER, MERGE, SUM, Carried, follow
from tokenprune.device import upload
from tokenprune.history import StepHistory
from tokenprune.plan import TokenPlan
from tokenprune.runtime.mass import with_heirs
from tokenprune.runtime.slots import Gather, Slots
from tokenprune.signals import RULES, STAYS, carry_signals
from tokenprune.tokens import TokenSpan, VisualTokens

ROW = {"mass": SUM, "places": GATHER, "sizes": SUM, "blocks": GATHER}
"""How what a row knows of each of its visual tokens follows a plan."""


@dataclass(frozen=True, eq=False)
class Merged:
    """A row whose plan mixes: its visual tokens stood at ``before`` ``(N,)`` and stand at ``after`` ``(K,)``."""

    row: int
    before: Tensor
    after: Tensor
    plan: TokenPlan


@dataclass(frozen=True, eq=False)
class Step:
    """One shortening of the batch, to be applied to everything that travels with its tokens."""

    gather: Gather
    merged: tuple[Merged, ...]

    def carry(self, x: Tensor, carried: Carried) -> Tensor:
        """What is left of ``x`` ``(B, S, ...)``, in the layout and by the rule that is declared; it is not changed."""
        shorter = self.gather.take(x, carried.batch_dim % x.ndim, carried.token_dim % x.ndim)
        for each in self.merged if carried.rule == MERGE else ():
            before, after = each.before.to(x.device), each.after.to(x.device)
            shorter[each.row, after] = follow(x[each.row, before], each.plan, carried.rule)
        return shorter


@dataclass(eq=False)
class RowState:
    """The visual tokens of one prompt row, all its videos and images in order.

    Attributes:
        spans: where each of them stood in the prompt.
        plan: what has happened to all their tokens so far.
        counts: how many tokens of each are left.
        places: ``(K,)`` slots of the K tokens that are left.
        blocks: ``(K,)`` int64 label of the block each belongs to (a frame, or what a merger left).
        sizes: ``(K,)`` int64 how many original tokens were merged into each.
        signals: what else is known of them, ``(K, ...)`` each; the text's embeddings are ``(R, D)``.
        mass: ``(K,)`` fp32 how many tokens each stands for; None where nobody asks.
        entry: ``(K, D)`` features by which a dropped token's heir is found; only with ``mass``.
        steps: per span what each operator changed.
    """

    spans: Sequence[VisualSpan]
    plan: TokenPlan
    counts: list[int]
    places: Tensor
    blocks: Tensor
    sizes: Tensor
    mass: Tensor | None
    entry: Tensor | None = None
    signals: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    steps: list[list[StepHistory]] = field(default_factory=list[list[StepHistory]])

    @classmethod
    def start(cls, spans: Sequence[VisualSpan], device: torch.device, with_mass: bool) -> RowState:
        """Every token in its place; the frames are the blocks."""
        volumes = [len(span.columns) for span in spans]
        columns = torch.cat([span.columns for span in spans]) if spans else torch.zeros(0, dtype=torch.int64)
        frames = [torch.arange(s.grid[0]).repeat_interleave(s.grid[1] * s.grid[2]) for s in spans]
        starts = itertools.accumulate((s.grid[0] for s in spans), initial=0)
        blocks = [labels + start for labels, start in zip(frames, starts)]
        places = upload(columns, device)
        return cls(
            spans,
            TokenPlan.identity(len(columns), device),
            volumes,
            places,
            upload(torch.cat(blocks) if blocks else columns, device),
            torch.ones_like(places),
            torch.ones(len(columns), device=device) if with_mass else None,
            steps=[[] for _ in spans],
        )

    @property
    def count(self) -> int:
        """Visual tokens left."""
        return len(self.places)

    def of(self, modalities: Sequence[str]) -> list[int]:
        """Which of the spans are of these modalities."""
        return [i for i, span in enumerate(self.spans) if span.modality in modalities]

    def shown(self, modalities: Sequence[str]) -> list[int]:
        """Which of them have tokens left."""
        return [i for i in self.of(modalities) if self.counts[i]]

    def part(self, span: int) -> slice:
        """Where a span's tokens are among the K."""
        begin = sum(self.counts[:span])
        return slice(begin, begin + self.counts[span])

    def index(self, shown: Sequence[int]) -> Tensor | None:
        """``(n,)`` where the tokens of these spans are among the K; None: they are all."""
        if sum(self.counts[i] for i in shown) == self.count:
            return None
        parts = [self.part(i) for i in shown]
        device = self.places.device
        return torch.cat([torch.arange(p.start, p.stop, device=device) for p in parts]) if parts else self.places[:0]

    def tokens(self, shown: Sequence[int], features: Tensor, more: Mapping[str, Any]) -> VisualTokens:
        """The tokens of these spans for an operator.

        Args:
            shown: which spans.
            features: ``(S, D)`` of everything that stands in the row.
            more: further signals.
        """
        index = self.index(shown)
        places = self.places if index is None else self.places[index]
        return self.tokens_at(shown, features[places.to(features.device)], more)

    def tokens_at(self, shown: Sequence[int], features: Tensor, more: Mapping[str, Any]) -> VisualTokens:
        """The same with the features ``(n, D)`` of just these tokens."""
        index = self.index(shown)
        grids = [self.spans[i].grid for i in shown]
        edges = list(itertools.accumulate((self.counts[i] for i in shown), initial=0))
        spans = [
            TokenSpan(self.spans[i].modality, grid, slice(a, b))
            for i, grid, a, b in zip(shown, grids, edges, edges[1:])
        ]
        signals = {
            name: value if index is None or RULES[name] == STAYS else value[index]
            for name, value in self.signals.items()
        }
        membership, anchors = self._origins(shown)
        return VisualTokens(
            features,
            grids[0] if len(grids) == 1 else (sum(len(self.spans[i].columns) for i in shown), 1, 1),
            self.sizes if index is None else self.sizes[index],
            membership,
            anchors,
            self.blocks if index is None else self.blocks[index],
            {**signals, **more},
            tuple(spans),
        )

    def lift(self, plan: TokenPlan, shown: Sequence[int]) -> TokenPlan:
        """A plan over the tokens of these spans as one over all K."""
        index = self.index(shown)
        return plan if index is None else plan.lift(index, self.count)

    def follow(self, plan: TokenPlan, kept: list[int], entry_rule: str) -> None:
        """The plan over the K tokens is done; ``kept`` of each span go on. Places are still those before."""
        if self.mass is not None and self.entry is not None:
            left = follow(self.entry, plan, entry_rule)
            self.mass = follow(self.mass, with_heirs(plan, self.entry, left, self.counts), ROW["mass"])
            self.entry = left
        self.plan = self.plan.then(plan)
        self.counts = kept
        self.places = follow(self.places, plan, ROW["places"])
        self.sizes = follow(self.sizes, plan, ROW["sizes"])
        self.blocks = plan.blocks if plan.blocks is not None else follow(self.blocks, plan, ROW["blocks"])
        self.signals = carry_signals(self.signals, plan)

    def _origins(self, shown: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Of the cells of these spans, in order: the place of the token each is part of, and each token's own cell."""
        members, anchors, cells, kept = [], [], 0, 0
        volumes = [len(span.columns) for span in self.spans]
        for i in shown:
            first, part = sum(volumes[:i]), self.part(i)
            assign = self.plan.assign[first : first + volumes[i]] - part.start
            members.append(torch.where((assign >= 0) & (assign < self.counts[i]), assign + kept, -1))
            anchors.append(self.plan.anchors[part] - first + cells)
            cells, kept = cells + volumes[i], kept + self.counts[i]
        return torch.cat(members), torch.cat(anchors)


@dataclass(eq=False)
class TokenState:
    """The tokens of one prefill.

    Args:
        rows: the visual tokens of each prompt row.
        slots: what stands where in the running batch.
        text_rows: per row the slots of the text tokens after its last visual token.
        earlier: what the cache stores already, or None.
        first_column: logical column at which the new tokens begin.
    """

    rows: list[RowState]
    slots: Slots
    text_rows: list[Tensor]
    earlier: Slots | None
    first_column: int

    def __post_init__(self) -> None:
        self.new_length = len(self.slots)
        self.first_real = self.slots.real
        self.first_visual = self.visual_counts()

    @property
    def logical_length(self) -> int:
        """Tokens of the sequence once this prefill is done, the removed ones included."""
        return self.first_column + self.new_length

    def visual_counts(self, modalities: Sequence[str] | None = None) -> list[int]:
        """Visual tokens of each row that are still in the running sequence."""
        return [
            sum(n for n, span in zip(row.counts, row.spans) if modalities is None or span.modality in modalities)
            for row in self.rows
        ]

    def step(self, plans: Sequence[TokenPlan], kept: Sequence[list[int]], entry_rule: str = GATHER) -> Step:
        """Shorten the running sequence.

        Args:
            plans: for each row a plan over its visual tokens, in order; at least one of them changes something.
            kept: for each row how many tokens of each of its spans go on.
            entry_rule: how the features by which heirs are found are carried: before the LLM merged as the embeddings
                are, inside it those of the kept tokens.
        """
        stays = self.slots.valid.clone()
        for number, (row, plan) in enumerate(zip(self.rows, plans)):
            stays[number, row.places] = False
            stays[number, row.places[plan.anchors]] = True
        # What is left is counted from the plans, so that no length has to be read from the device; text always stays.
        text = [real - visual for real, visual in zip(self.first_real, self.first_visual)]
        gather = self.slots.keep(stays, [t + plan.kept for t, plan in zip(text, plans)])
        moved = torch.zeros_like(self.slots.columns)  # old slot -> new slot; of those that go nobody asks
        slots = torch.arange(gather.index.shape[1], device=moved.device)
        moved.scatter_(1, gather.index, slots.expand_as(gather.index))
        self.slots = self.slots.after(gather)
        merged: list[Merged] = []
        for number, (row, plan, left) in enumerate(zip(self.rows, plans, kept)):
            before = row.places
            if not plan.is_identity:
                row.follow(plan, left, entry_rule)
            row.places = moved[number, row.places]
            self.text_rows[number] = moved[number, self.text_rows[number]]
            if plan.mixes:
                merged.append(Merged(number, before, row.places, plan))
            if row.mass is not None and row.plan.kept < row.plan.total:
                self.slots = self.slots.with_mass(number, row.places, row.mass)
        return Step(gather, tuple(merged))

    def stored(self) -> Slots:
        """What a cache layer holds that ran on the running sequence: the earlier tokens, then these."""
        return self.slots if self.earlier is None else self.earlier.beside(self.slots)

    def compact(self, stored: Slots) -> Gather | None:
        """How a cache layer that stores ``stored`` is cut to the tokens that are still in the sequence; None: not.

        All layers are to store the same tokens in the same slots. Between earlier and new tokens rows may be padded,
        so that a layer which has lost nothing is moved together as well.
        """
        real = self.stored().real
        if stored.real == real and (self.earlier is None or not stored.is_padded):
            return None
        # Layers were cut at different times, so a token's slot differs from layer to layer; its column never does.
        alive = torch.zeros(len(real), self.logical_length, dtype=torch.bool, device=stored.columns.device)
        for part in (self.earlier, self.slots):
            if part is not None:
                alive.scatter_(1, part.columns, part.valid)
        return stored.keep(alive.gather(1, stored.columns), real)
