# SPDX-License-Identifier: Apache-2.0
"""What one prefill lost where: counts per stage and layer, bytes of the KV cache, and which tokens were kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from tokenprune.history import SpanHistory
from tokenprune.plan import TokenPlan
from tokenprune.runtime.origins import Origins
from tokenprune.runtime.prefill import Prefill, StageRecord
from tokenprune.runtime.slots import Slots
from tokenprune.runtime.state import RowState


@dataclass(frozen=True)
class CacheBytes:
    """Bytes of keys and values after the prefill, padding counted, and what they would be without pruning.

    >>> CacheBytes(stored=25, unpruned=100).stored
    25
    """

    stored: int
    unpruned: int


@dataclass(frozen=True, eq=False)
class Report:
    """The report of one prefill that held visual tokens; lists have one entry per row of the user's batch.

    >>> with tp.attach(model, tp.AttnPrune(layer=2, keep=20)) as session:
    ...     ids = model.generate(**inputs, max_new_tokens=1)
    >>> report = session.report
    >>> report.visual_tokens, [(stage["operator"], stage["visual_after"]) for stage in report.stages]
    ([288], [('AttnPrune', [20])])

    Attributes:
        prompt_tokens: tokens of each row before anything, padding not counted.
        visual_tokens: visual tokens of each row before anything.
        layer_tokens: per decoder layer the tokens it computed, per row.
        expanded: copies of each prompt that ran (beams or return sequences); the first copy is shown.
        cache: KV bytes, None where the forward used no cache.
    """

    prompt_tokens: list[int]
    visual_tokens: list[int]
    layer_tokens: list[list[int]]
    expanded: int
    cache: CacheBytes | None
    _visual_left: list[list[int]]
    _records: list[StageRecord]
    _final: Slots
    _state_rows: list[RowState]
    _origins: Origins
    _pressed: list[int] | None = None
    _held: Tensor | None = None

    @cached_property
    def stages(self) -> list[dict[str, Any]]:
        """Per operator, in order: name, site, layer, visual tokens before and after per row, seconds."""
        return [
            {
                "operator": record.stage.name,
                "site": record.stage.site,
                "layer": record.stage.layer,
                "visual_before": self._rows(record.before),
                "visual_after": self._rows(record.after),
                "seconds": record.begin.until(record.end),
            }
            for record in self._records
        ]

    @property
    def visual_retained(self) -> list[float]:
        """Final visual tokens / initial, per row; 1.0 where there were none."""
        return [_ratio(left, first) for left, first in zip(self._visual_left[-1], self.visual_tokens)]

    @property
    def layer_averaged_retained(self) -> list[float]:
        """Mean over the decoder layers of visual tokens seen / initial, per row: the budget at which papers compare."""
        per_row = zip(*self._visual_left[:-1])
        return [_ratio(sum(left), first * len(left)) for left, first in zip(per_row, self.visual_tokens)]

    @property
    def compression_ratio(self) -> list[float]:
        """``1 - visual_retained``, the fraction of visual tokens removed, per row."""
        return [1.0 - kept for kept in self.visual_retained]

    @property
    def kv_bytes(self) -> int | None:
        """Bytes of the whole KV cache after the prefill, padding counted; None without a cache."""
        return None if self.cache is None else self.cache.stored

    @property
    def kv_bytes_unpruned(self) -> int | None:
        """Bytes the cache would hold had nothing been removed; None without a cache."""
        return None if self.cache is None else self.cache.unpruned

    @cached_property
    def kept(self) -> list[Tensor]:
        """Per row the columns of the ``input_ids`` as passed that the model still holds; strictly increasing.

        After a press: that any layer and head still holds; ``to_dict()["kept_per_head"]`` counts those of each.
        """
        if self._held is None:
            columns, valid = self._final.columns.cpu(), self._final.valid.cpu()
            kept = [row[there] for row, there in zip(columns, valid)]
        else:
            kept = [row.nonzero().squeeze(1) for row in self._held]
        kept = [row - self._origins.first_passed for row in kept[:: self.expanded]]
        return [row[row >= 0] for row in kept]

    @property
    def sources(self) -> list[list[Tensor]]:
        """Per row, parallel to the visual tokens of :attr:`kept`: the sorted columns merged into each."""
        return self._origins.sources

    @property
    def spans(self) -> list[list[SpanHistory]]:
        """Per row its videos and images of this prefill, in order, and what each operator did to them."""
        offset = self._origins.first_new - self._origins.first_passed
        return [
            [
                SpanHistory(span.modality, span.grid, span.columns + offset, plan, tuple(steps))
                for span, plan, steps in zip(row.spans, _plans_of(row), row.steps)
            ]
            for row in self._state_rows[:: self.expanded]
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the counts, ratios, stages and bytes."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "visual_tokens": self.visual_tokens,
            "stages": self.stages,
            "layer_tokens": self.layer_tokens,
            "visual_retained": self.visual_retained,
            "layer_averaged_retained": self.layer_averaged_retained,
            "kv_bytes": self.kv_bytes,
            "kv_bytes_unpruned": self.kv_bytes_unpruned,
            "compression_ratio": self.compression_ratio,
            "expanded": self.expanded,
            **({} if self._pressed is None else {"kept_per_head": self._pressed}),
        }

    def _rows(self, counts: list[int]) -> list[int]:
        return counts[:: self.expanded]


@dataclass(eq=False)
class LayerLog:
    """Tokens and visual tokens that each decoder layer computed; filled while the prefill runs."""

    tokens: list[list[int]] = field(default_factory=list[list[int]])
    visual: list[list[int]] = field(default_factory=list[list[int]])

    def note(self, prefill: Prefill, layers: int) -> None:
        """``layers`` further layers run on the running sequence as it is now."""
        for _ in range(layers):
            self.tokens.append(list(prefill.state.slots.real))
            self.visual.append(prefill.state.visual_counts())


def make_report(
    prefill: Prefill,
    log: LayerLog,
    *,
    expanded: int,
    passed: int | None,
    cache: CacheBytes | None,
    earlier: Origins | None,
    held: Tensor | None = None,
) -> Report:
    """Freeze what a finished prefill knows.

    Args:
        prefill: the finished prefill.
        log: what each layer computed.
        expanded: copies of each prompt that ran.
        passed: number of columns of the ``input_ids`` that the user passed; None: just the new tokens.
        cache: KV bytes, or None.
        earlier: the turn before on the same cache.
        held: ``(B, tokens so far)`` bool, which tokens any layer or head of the cache stores, where they differ.
    """
    state = prefill.state
    stored = state.stored()
    gather = state.compact(stored)
    final = stored if gather is None else stored.after(gather)
    # Without a cache generate passes all ids again with each step, its own answers too: they always begin at 0.
    begins = state.logical_length - (state.new_length if passed is None else passed)
    first_passed = begins if state.first_column else 0
    return Report(
        prompt_tokens=state.first_real[::expanded],
        visual_tokens=state.first_visual[::expanded],
        layer_tokens=[tokens[::expanded] for tokens in log.tokens],
        expanded=expanded,
        cache=cache,
        _visual_left=[row[::expanded] for row in [*log.visual, prefill.visual_left]],
        _records=prefill.records,
        _final=final,
        _state_rows=state.rows,
        _origins=Origins.of(state.rows[::expanded], first_passed, state.first_column, earlier),
        _pressed=None if prefill.pressed is None else prefill.pressed[::expanded],
        _held=held,
    )


def _plans_of(row: RowState) -> list[TokenPlan]:
    """What has happened to each span of a row in all."""
    segments = [next((s.plan.segments for s in reversed(steps) if s.plan.segments), None) for steps in row.steps]
    plans = row.plan.split([len(span.columns) for span in row.spans])
    return [replace(plan, segments=found) for plan, found in zip(plans, segments)]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
