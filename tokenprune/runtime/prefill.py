# SPDX-License-Identifier: Apache-2.0
"""One prefill on its way through a pipeline: what stays is decided here, and where everything stands is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tokenprune.errors import UnsupportedModeError
from tokenprune.pipeline import Pipeline
from tokenprune.plan import TokenPlan
from tokenprune.protocols import TokenSelector
from tokenprune.runtime.layout import Layout, Ragged
from tokenprune.runtime.span import RunningSpan
from tokenprune.runtime.timing import Moment
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True, eq=False)
class Stage:
    """What one operator did, per row, for the report."""

    operator: str
    site: str
    layer: int | None
    before: list[int]
    after: list[int]
    begin: Moment
    end: Moment

    def ending_now(self, device: torch.device) -> Stage:
        """The same stage, lasting until now."""
        return replace(self, end=Moment.now(device))


@dataclass(eq=False)
class Prefill:
    """The state of one prefill that holds visual tokens.

    Args:
        pipeline: the operators.
        rows: per prompt row its videos and images.
        layout: where the new tokens stand (unshortened at first).
        text_rows: per row the places of the text tokens after its last visual token.
        earlier: what the cache stores already, or None.
        first_column: logical column at which the new tokens begin.
    """

    pipeline: Pipeline
    rows: list[list[RunningSpan]]
    layout: Layout
    text_rows: list[Tensor]
    earlier: Layout | None
    first_column: int
    stages: list[Stage] = field(default_factory=list[Stage])

    def __post_init__(self) -> None:
        self.new_length = self.layout.columns.shape[1]
        self.first_real = self.layout.real
        self.first_visual = self.visual_counts()

    @property
    def logical_length(self) -> int:
        """Tokens of the sequence once this prefill is done, the removed ones included."""
        return self.first_column + self.new_length

    def visual_counts(self, modalities: Sequence[str] | None = None) -> list[int]:
        """Visual tokens of each row that are still in the running sequence."""
        return [sum(s.count for s in row if modalities is None or s.span.modality in modalities) for row in self.rows]

    def require_text_rows(self) -> None:
        """Raise if a row with visual tokens to be scored has no text after its last visual token."""
        for selector in self.pipeline.selectors:
            if not reads_attention(selector):
                continue
            for row, count in enumerate(self.visual_counts(selector.modalities)):
                if selector.budget.count(count) < count and len(self.text_rows[row]) == 0:
                    raise UnsupportedModeError(
                        f"row {row} has no text after its last visual token, so nothing can score its visual tokens; "
                        "put the question after the video"
                    )

    def merge(self, embeds: Tensor) -> tuple[Ragged, Tensor] | None:
        """Run the mergers over ``(B, L, D)`` embeddings.

        Returns:
            The gathering and the shorter embeddings ``(B, K, D)``; None where every plan is the identity.
        """
        videos = [(row, s) for row, spans in enumerate(self.rows) for s in spans if s.span.modality == "video"]
        if not videos or not self.pipeline.mergers:
            return None
        tokens = [VisualTokens(embeds[row, s.places.to(embeds.device)], s.span.grid) for row, s in videos]
        for operator in self.pipeline.mergers:
            begin, before, name = Moment.now(embeds.device), self.visual_counts(), type(operator).__name__
            for place, (_, span) in enumerate(videos):
                plan = operator.plan(tokens[place]).validate()
                tokens[place] = plan.apply(tokens[place])
                span.follow(plan, name)
            end = Moment.now(embeds.device)
            self.stages.append(Stage(name, "before_llm", None, before, self.visual_counts(), begin, end))
        if all(span.plan.is_identity for _, span in videos):
            return None
        ragged = self._shorten()
        shorter = ragged.gather(embeds)
        for (row, span), merged in zip(videos, tokens):
            if not span.plan.is_identity:
                shorter[row, span.places.to(shorter.device)] = merged.features
        return ragged, shorter

    def will_cut(self, selector: TokenSelector) -> bool:
        """Whether the selector's budget leaves any row with fewer tokens than it has now."""
        return any(selector.budget.count(count) < count for count in self.visual_counts(selector.modalities))

    def scored_places(self, selector: TokenSelector, row: int) -> Tensor:
        """``(N,)`` where the row's visual tokens that the selector may cut stand in the running sequence."""
        places = [s.places for s in self.rows[row] if s.span.modality in selector.modalities]
        return torch.cat(places) if places else self.layout.columns.new_zeros(0)

    def cut(self, selector: TokenSelector, layer: int, scores: Sequence[Tensor | None], begin: Moment) -> Ragged:
        """Let the selector decide on each row's ``(N,)`` scores (None: the row keeps all) and shorten the layout."""
        before = self.visual_counts()
        for spans, row_scores in zip(self.rows, scores):
            if row_scores is not None:
                _select(selector, layer, [s for s in spans if s.span.modality in selector.modalities], row_scores)
        ragged = self._shorten()
        name = type(selector).__name__
        self.stages.append(Stage(name, "after_layer", layer, before, self.visual_counts(), begin, begin))
        return ragged

    def note_idle(self, selector: TokenSelector, layer: int) -> None:
        """Record that the selector had nothing to cut."""
        counts, now = self.visual_counts(), Moment.now(self.layout.columns.device)
        self.stages.append(Stage(type(selector).__name__, "after_layer", layer, counts, counts, now, now))

    def stored(self) -> Layout:
        """What a cache layer holds that ran on the running sequence: the earlier tokens, then these."""
        return self.layout if self.earlier is None else self.earlier.beside(self.layout)

    def compact(self, stored: Layout) -> Ragged | None:
        """How a cache layer that stores ``stored`` is cut to the tokens that are still in the sequence; None: not.

        All layers are to store the same tokens in the same slots. Between earlier and new tokens rows may be padded,
        so that a layer which has lost nothing is moved together as well.
        """
        real = self.stored().real
        if stored.real == real and (self.earlier is None or not stored.is_padded):
            return None
        alive = torch.zeros(len(real), self.logical_length, dtype=torch.bool, device=stored.columns.device)
        for part in (self.earlier, self.layout):
            if part is not None:
                alive.scatter_(1, part.columns, part.valid)
        return stored.keep(alive.gather(1, stored.columns), real)

    def _shorten(self) -> Ragged:
        """Shorten the running sequence to what the spans' plans leave; every place is moved along."""
        stays = self.layout.valid.clone()
        for row, spans in enumerate(self.rows):
            for span in spans:
                stays[row, span.standing] = False
                stays[row, span.places] = True
        left = [
            real - visual + left for real, visual, left in zip(self.first_real, self.first_visual, self.visual_counts())
        ]
        ragged = self.layout.keep(stays, left)
        moved = torch.zeros_like(self.layout.columns)
        places = torch.arange(ragged.index.shape[1], device=moved.device)
        moved.scatter_(1, ragged.index, places.expand_as(ragged.index))
        for row, spans in enumerate(self.rows):
            self.text_rows[row] = moved[row, self.text_rows[row]]
            for span in spans:
                span.places = moved[row, span.places]
                span.standing = span.places
        self.layout = self.layout.after(ragged)
        return ragged


def reads_attention(selector: TokenSelector) -> bool:
    """Whether the selector's scorer looks at queries and keys at all."""
    return bool(getattr(selector.scorer, "reads_attention", True))


def _select(selector: TokenSelector, layer: int, spans: list[RunningSpan], scores: Tensor) -> None:
    """Apply the selector's plan over the concatenated tokens of ``spans`` to each of them."""
    device = spans[0].places.device
    blocks: list[Tensor] = []
    for span in spans:
        blocks.append(span.blocks if not blocks else span.blocks + blocks[-1].max() + 1)
    scores = scores.to(device)
    plan = selector.choose(scores, torch.cat(blocks)).validate()
    if plan.is_identity:
        return
    counts = [span.count for span in spans]
    starts = torch.tensor([0, *counts], device=device).cumsum(0)
    cuts = torch.searchsorted(plan.anchors, starts).tolist() if len(spans) > 1 else [0, plan.kept]
    parts = scores.detach().split(counts)
    for place, span in enumerate(spans):
        anchors = plan.anchors[cuts[place] : cuts[place + 1]] - starts[place]
        span.follow(TokenPlan.keeping(anchors, counts[place]), type(selector).__name__, layer, parts[place])
