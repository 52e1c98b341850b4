# SPDX-License-Identifier: Apache-2.0
"""One prefill on its way through a pipeline: each operator is asked at its place, one step carries out its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tokenprune.carried import GATHER, MERGE
from tokenprune.errors import UnsupportedModeError
from tokenprune.history import StepHistory
from tokenprune.operator import AFTER_LAYER, AFTER_PREFILL, BEFORE_LLM
from tokenprune.plan import TokenPlan
from tokenprune.runtime.state import RowState, Step, TokenState
from tokenprune.runtime.timing import Timestamp
from tokenprune.signals import FEATURES
from tokenprune.stage import Stage

Attend = Callable[[int, Tensor], Any]
"""``(row, places) -> AttentionView`` of the layer that has just run, over these slots."""


@dataclass(frozen=True, eq=False)
class StageRecord:
    """What one operator did, per row, for the report."""

    stage: Stage
    before: list[int]
    after: list[int]
    begin: Timestamp
    end: Timestamp


@dataclass(eq=False)
class Prefill:
    """A prefill that holds visual tokens.

    Args:
        stages: the pipeline's operators at their places.
        state: its tokens.
        pressed: per row how many visual tokens each layer and head of the cache keeps after a press; None without one.
        entered: schedule -> of each row how many tokens of each span entered its first stage, once that is reached.
    """

    stages: Sequence[Stage]
    state: TokenState
    records: list[StageRecord] = field(default_factory=list[StageRecord])
    pressed: list[int] | None = None
    entered: dict[int, list[list[int]]] = field(default_factory=dict[int, list[list[int]]])

    def at(self, site: str, layer: int | None = None) -> list[Stage]:
        """The operators that act at a site (after this layer), in order."""
        return [stage for stage in self.stages if stage.site == site and stage.layer == layer]

    def rows_for(self, stage: Stage) -> list[bool]:
        """Which rows the operator may change anything about."""
        found: list[bool] = []
        for number, row in enumerate(self.state.rows):
            spans = row.of(stage.modalities)
            groups = [[i] for i in spans] if stage.site == BEFORE_LLM else [spans]
            acts = [self._exact(stage, number, some).acts_on(sum(row.counts[i] for i in some)) for some in groups]
            found.append(any(acts))
        return found

    def _exact(self, stage: Stage, row: int, spans: Sequence[int]) -> Stage:
        """The stage for these spans of a row: in a schedule its ratio is of what entered the first stage."""
        entered = None if stage.schedule is None else self.entered.get(stage.schedule)
        return stage if entered is None else stage.of_entered(sum(entered[row][i] for i in spans))

    def may_act(self, sites: Sequence[str] = (BEFORE_LLM, AFTER_LAYER, AFTER_PREFILL)) -> bool:
        """Whether any operator at these sites may change anything."""
        return any(any(self.rows_for(stage)) for stage in self.stages if stage.site in sites)

    def require_text_rows(self) -> None:
        """Raise if a row with visual tokens to be scored by its text has none after its last visual token."""
        for stage in self.stages:
            for row, asked in enumerate(self.rows_for(stage)):
                if asked and stage.reads_text_rows and len(self.state.text_rows[row]) == 0:
                    raise UnsupportedModeError(
                        f"row {row} has no text after its last visual token, so nothing can score its visual tokens; "
                        "put the question after the video"
                    )

    def take_features(self, embeds: Tensor) -> None:
        """Remember what the visual tokens look like now, for heirs of dropped ones and operators that ask."""
        asked = any("embeddings" in stage.needs for stage in self.stages)
        for number, row in enumerate(self.state.rows):
            if row.mass is None and not asked:
                continue
            entry = embeds[number, row.places.to(embeds.device)].detach().float().to(row.places.device)
            row.entry = None if row.mass is None else entry
            if asked:
                row.signals["embeddings"] = entry

    def decide(self, stage: Stage, hidden: Tensor, attend: Attend | None = None) -> Step | None:
        """Ask the operator about every row and shorten the state by its plans; None where nothing changes.

        Args:
            stage: the operator; before the LLM it is asked about each video or image, inside it about each row.
            hidden: ``(B, S, D)`` embeddings or hidden states of the running sequence.
            attend: reads the attention of the layer, where the operator needs it.
        """
        begin, before = Timestamp.now(hidden.device), self.state.visual_counts()
        self._reach(stage)
        asked = self.rows_for(stage)
        rule = MERGE if stage.site == BEFORE_LLM else GATHER
        decided = [
            self._ask(stage, number, hidden[number], attend) if asked[number] else _unchanged(row)
            for number, row in enumerate(self.state.rows)
        ]
        plans, kept = [plan for plan, _ in decided], [counts for _, counts in decided]
        step = None if all(plan.is_identity for plan in plans) else self.state.step(plans, kept, rule)
        end = Timestamp.now(hidden.device)
        self.records.append(StageRecord(stage, before, self.state.visual_counts(), begin, end))
        return step

    def _ask(self, stage: Stage, number: int, hidden: Tensor, attend: Attend | None) -> Decided:
        row = self.state.rows[number]
        if stage.site == BEFORE_LLM:
            return _ask_each_span(lambda span: self._exact(stage, number, [span]), row, hidden)
        exact = self._exact(stage, number, row.of(stage.modalities))
        return _ask_row(exact, row, hidden, self._more(stage, number, row, attend))

    def _reach(self, stage: Stage) -> None:
        """The stage's turn has come: if it is the first of its schedule, remember how many tokens enter it."""
        if stage.schedule is not None:
            self.entered.setdefault(stage.schedule, [list(row.counts) for row in self.state.rows])

    @property
    def visual_left(self) -> list[int]:
        """Visual tokens of each row that a layer of the cache stores in the end."""
        return self.state.visual_counts() if self.pressed is None else self.pressed

    def press(self, stage: Stage, counts: list[int], shares: Sequence[Tensor]) -> None:
        """Record a press.

        Args:
            stage: the operator.
            counts: of each row's tokens so many are kept in each layer and head.
            shares: per row ``(K,)`` fp32, in which share of the layers and heads each token is kept.
        """
        before, now = self.state.visual_counts(), Timestamp.now(self.state.slots.columns.device)
        self.pressed = counts
        plans = [
            replace(TokenPlan.keeping(share.nonzero().squeeze(1), len(share)), scores=share if len(share) else None)
            for share in shares
        ]
        parts = [plan.split(row.counts) if row.spans else [] for row, plan in zip(self.state.rows, plans)]
        for row, found in zip(self.state.rows, parts):
            for number, part in enumerate(found):
                _trace(stage, row, number, part)
        if any(not plan.is_identity for plan in plans):
            self.state.step(plans, [[part.kept for part in found] for found in parts])
        self.records.append(StageRecord(stage, before, counts, now, now))

    def note_idle(self, stage: Stage) -> None:
        """Record that an operator had nothing to do."""
        self._reach(stage)
        counts, now = self.state.visual_counts(), Timestamp.now(self.state.slots.columns.device)
        self.records.append(StageRecord(stage, counts, counts, now, now))

    def ending_now(self, device: torch.device) -> None:
        """The last stage lasted until now."""
        self.records[-1] = replace(self.records[-1], end=Timestamp.now(device))

    def _more(self, stage: Stage, number: int, row: RowState, attend: Attend | None) -> Mapping[str, Any]:
        if attend is None or "attention" not in stage.needs:
            return {}
        index = row.index(row.shown(stage.modalities))
        return {"attention": attend(number, row.places if index is None else row.places[index])}


Decided = tuple[TokenPlan, list[int]]
"""A plan over all visual tokens of a row, and how many of each span it keeps."""


def _unchanged(row: RowState) -> Decided:
    return TokenPlan.identity(row.count, row.places.device), row.counts


def _ask_each_span(stage_of: Callable[[int], Stage], row: RowState, features: Tensor) -> Decided:
    """Before the LLM: one video or image at a time."""
    plans: list[TokenPlan] = []
    for number in range(len(row.spans)):
        stage, total = stage_of(number), row.counts[number]
        plan = TokenPlan.identity(total, row.places.device)
        if number in row.shown(stage.modalities) and stage.acts_on(total):
            plan = stage.decide(row.tokens([number], features, {}))
            _trace(stage, row, number, plan)
        plans.append(_labelled(plan, row, number))
    return TokenPlan.concatenate(plans), [plan.kept for plan in plans]


def _ask_row(stage: Stage, row: RowState, hidden: Tensor, more: Mapping[str, Any]) -> Decided:
    """At a layer: all visual tokens of a row that its modalities name."""
    shown = row.shown(stage.modalities)
    if stage.may_read(FEATURES):
        tokens = row.tokens(shown, hidden, more)
    else:
        tokens = row.tokens_at(shown, hidden.new_empty(sum(row.counts[i] for i in shown), 0), more)
    plan = stage.decide(tokens)
    kept = list(row.counts)
    for number, part in zip(shown, plan.split([row.counts[i] for i in shown])):
        kept[number] = part.kept
        _trace(stage, row, number, part)
    return row.lift(plan, shown), kept


def _labelled(plan: TokenPlan, row: RowState, number: int) -> TokenPlan:
    """The plan with the blocks of its tokens, numbered so that those of two spans differ."""
    if plan.blocks is None:
        return replace(plan, blocks=row.blocks[row.part(number)][plan.anchors])
    return plan


def _trace(stage: Stage, row: RowState, number: int, plan: TokenPlan) -> None:
    if not plan.is_identity:
        row.steps[number].append(StepHistory(stage.name, stage.layer, plan, plan.scores, stage.site))
