# SPDX-License-Identifier: Apache-2.0
"""What a model port asks while a forward runs: are there visual tokens, what may be done, who is running."""

from __future__ import annotations

import warnings
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from tokenprune.adapter import AdaptedModel, AttentionReader, Prompt, VisualSpan
from tokenprune.device import upload
from tokenprune.errors import TokenPruneWarning, UnsupportedModeError
from tokenprune.pipeline import Pipeline
from tokenprune.runtime.entrance import Entrance
from tokenprune.runtime.log import tell_spans, tell_stages
from tokenprune.runtime.origins import Origins
from tokenprune.runtime.prefill import Prefill
from tokenprune.runtime.report import CacheBytes, LayerLog, Report, make_report
from tokenprune.runtime.row_signals import Given, Recall, fill_signals
from tokenprune.runtime.slots import Slots
from tokenprune.runtime.state import RowState, TokenState
from tokenprune.stage import Stage
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class Call:
    """What ``generate`` knows and a forward cannot see.

    Args:
        expanded: copies of each prompt that run (beams, return sequences).
        passed: number of columns of the ``input_ids`` the user passed.
    """

    expanded: int = 1
    passed: int | None = None


@dataclass(eq=False)
class ActivePipeline:
    """One session's pipeline and adapter, its running call, and its reports.

    Args:
        pipeline: the operators.
        adapter: the model, with the adapter that accepted it.
        stages: the pipeline's operators at their places in this model.
        fallback: attention backend to switch to where the model's own cannot carry attention mass; None: refuse.
        given: signals that the caller gives.
        reports: of the last prefills.
        call: what the running ``generate`` knows.
        entrance: lets one thread in at a time.
    """

    pipeline: Pipeline
    adapter: AdaptedModel
    stages: list[Stage]
    fallback: str | None = None
    given: Given = field(default_factory=dict[str, Callable[[VisualTokens], torch.Tensor]])
    reports: deque[Report] = field(default_factory=deque[Report])
    call: Call = field(default_factory=Call)
    _turns: weakref.WeakKeyDictionary[object, Origins] = field(default_factory=weakref.WeakKeyDictionary)
    entrance: Entrance = field(init=False)

    def __post_init__(self) -> None:
        self.entrance = Entrance(acts=len(self.pipeline) > 0)

    @contextmanager
    def generating(self, call: Call) -> Generator[None, None, None]:
        """For the time of one ``generate``: its call is known, and no other thread may run this model."""
        depth = self.entrance.enter()
        if not depth:
            yield
            return
        previous, self.call = self.call, call
        try:
            yield
        finally:
            self.call = previous
            self.entrance.leave(depth)

    def __reduce__(self) -> Any:
        raise UnsupportedModeError("a session cannot be copied or pickled, nor its model in the middle of a forward")

    def begin(self, prompt: Prompt, earlier: Slots | None, first_column: int) -> Prefill | None:
        """The prefill of these new tokens; None where they hold no video or image.

        Raises:
            UnsupportedModeError: the layout cannot be read, or no text follows the visual tokens. An empty pipeline
                only warns, and writes no report.
        """
        spans = self._spans(prompt)
        if not any(spans):
            return None
        tell_spans(spans)
        device = prompt.input_ids.device
        valid = prompt.valid.cpu()
        real = valid.sum(1).tolist()
        text_rows = [_text_after(row_spans, row_valid) for row_spans, row_valid in zip(spans, valid)]
        state = TokenState(
            rows=[RowState.start(row, device, with_mass=self.pipeline.mass is not None) for row in spans],
            slots=Slots.start(prompt.valid, first_column, real),
            text_rows=[upload(row, device) for row in text_rows],
            earlier=earlier,
            first_column=first_column,
        )
        prefill = Prefill(self.stages, state)
        prefill.require_text_rows()
        self._require_readable_keys(earlier)
        return prefill

    def take_signals(self, prefill: Prefill, embeds: torch.Tensor, recall: Recall | None) -> None:
        """Give a prefill that has just begun the signals that its operators need, if any of them may act.

        Args:
            prefill: from :meth:`begin`.
            embeds: ``(B, S, D)`` embeddings of its tokens.
            recall: finds what the vision encoder has said of features; None: it is not read.
        """
        if prefill.may_act():
            copies = self.call.expanded if len(embeds) % self.call.expanded == 0 else 1
            fill_signals(prefill, embeds, self.given, recall, copies)

    def reader(self, layer: int) -> AttentionReader:
        """A reader of one layer's queries and keys."""
        return self.adapter.attention(layer)

    def finish(
        self,
        prefill: Prefill,
        log: LayerLog,
        cache: object | None,
        cache_bytes: CacheBytes | None,
        held: torch.Tensor | None = None,
    ) -> None:
        """Keep the report of a finished prefill; ``held`` as :func:`make_report` has it."""
        earlier = self._turns.get(cache) if cache is not None else None
        report = make_report(
            prefill,
            log,
            expanded=self.call.expanded,
            passed=self.call.passed,
            cache=cache_bytes,
            earlier=earlier,
            held=held,
        )
        tell_stages(prefill.records)
        self.reports.append(report)
        if cache is not None:
            self._turns[cache] = report._origins

    def _spans(self, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
        try:
            return self.adapter.boundaries(prompt)
        except UnsupportedModeError as error:
            if len(self.pipeline):
                raise
            warnings.warn(f"nothing to prune, but no report either: {error}", TokenPruneWarning, stacklevel=2)
            return ()

    def _require_readable_keys(self, earlier: Slots | None) -> None:
        if earlier is None:
            return
        for stage in self.stages:
            if stage.needs_unrotated_keys:
                scorer = getattr(stage.operator, "scorer", stage.operator)
                raise UnsupportedModeError(
                    f"{type(scorer).__name__} reads keys before RoPE, which the cache of earlier turns does "
                    'not hold; use scorer="rope_causal" for a continued conversation'
                )


def _text_after(spans: Sequence[VisualSpan], valid: torch.Tensor) -> torch.Tensor:
    """Places of the real tokens after the row's last visual token; none for a row without visual tokens."""
    last = max((int(span.columns[-1]) for span in spans), default=len(valid))
    places = torch.arange(len(valid), device=valid.device)
    return places[valid & (places > last)]
