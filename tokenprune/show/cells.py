# SPDX-License-Identifier: Apache-2.0
"""What happened to every cell of a video's grid, as plain arrays that any kind of drawing can use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokenprune.history import SpanHistory, StepHistory
from tokenprune.messages import site_named
from tokenprune.operator import AFTER_PREFILL, BEFORE_LLM
from tokenprune.plan import TokenPlan

KEPT, MERGED, DROPPED = 0, 1, 2
FATES = ("kept", "merged", "dropped")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """What one operator did, in numbers."""

    operator: str
    site: str
    layer: int | None
    before: int
    after: int

    @property
    def where(self) -> str:
        """At which place it acted, in words."""
        return site_named(self.site, self.layer) + (", in any layer and head" if self.site == AFTER_PREFILL else "")


@dataclass(frozen=True, eq=False)
class CellMap:
    """Every cell of a ``(T, H, W)`` grid, N of them in raster order.

    Args:
        grid: ``(T, H, W)``.
        fate: ``(N,)`` ``KEPT``: the cell's own token went on; ``MERGED``: it went on as part of another's token;
            ``DROPPED``: neither.
        lost: ``(N,)`` which of ``steps`` dropped it, -1 where none did.
        token: ``(N,)`` number of the token that the mergers made it part of, -1 where they dropped it; cells of one
            number are one token for the LLM.
        anchor: ``(N,)`` the cell where that token stands, -1 where there is none.
        static: ``(N,)`` bool, whether that token covers more than one frame: the place was merged over time.
        segments: frames ``(start, stop)`` that were merged together; empty where no operator told.
        steps: the operators that changed something, in order.
        scores: ``(N,)`` what the last operator that scores decided by, higher stays; NaN where the cell's token had
            been dropped before. None where nothing was scored, or all tokens alike.
        scored_by: which of ``steps`` those scores are of; -1 for none.
    """

    grid: tuple[int, int, int]
    fate: Ints
    lost: Ints
    token: Ints
    anchor: Ints
    static: npt.NDArray[np.bool_]
    segments: tuple[tuple[int, int], ...]
    steps: tuple[Step, ...]
    scores: Floats | None
    scored_by: int

    @classmethod
    def of(cls, span: SpanHistory) -> CellMap:
        """The cells of one traced video or image."""
        frames, height, width = span.grid
        total = frames * height * width
        lost, scores, scored_by = np.full(total, -1), None, -1
        plan = TokenPlan.identity(total)
        merged = plan
        for number, traced in enumerate(span.steps):
            step = _on_cpu(traced)
            seen = _scores(step, plan)
            if seen is not None:
                scores, scored_by = seen, number
            plan = plan.then(step.plan)
            if step.site == BEFORE_LLM:
                merged = plan
            lost[(plan.assign.numpy() < 0) & (lost < 0)] = number
        fate = np.where(lost >= 0, DROPPED, MERGED)
        fate[plan.anchors.numpy()] = KEPT
        token = merged.assign.numpy()
        anchor = np.where(token >= 0, merged.anchors.numpy()[token.clip(0)], -1)
        return cls(
            grid=span.grid,
            fate=fate,
            lost=lost,
            token=token,
            anchor=anchor,
            static=_over_time(token, height * width),
            segments=span.plan.segments or (),
            steps=tuple(Step(s.operator, s.site, s.layer, s.plan.total, s.plan.kept) for s in span.steps),
            scores=scores,
            scored_by=scored_by,
        )

    @property
    def scored(self) -> str:
        """What ``scores`` are, in words; empty where there are none."""
        if self.scores is None:
            return ""
        step = self.steps[self.scored_by]
        return f"{'share of layers and heads' if step.site == AFTER_PREFILL else 'scores'}: {step.operator}"

    @property
    def total(self) -> int:
        """Cells: visual tokens before anything."""
        return len(self.fate)

    def counts(self) -> dict[str, int]:
        """Cells of each fate, and how many of all are static."""
        fates = {name: int((self.fate == number).sum()) for number, name in enumerate(FATES)}
        return {**fates, "static": int(self.static.sum())}

    def segment_of(self, frame: int) -> int:
        """Number of the segment that a frame is in; -1 where no operator told."""
        return next((n for n, (start, stop) in enumerate(self.segments) if start <= frame < stop), -1)

    def heat(self) -> Floats | None:
        """``(N,)`` scores in [0, 1] for drawing: their share of the 98th percentile, at most 1; NaN stays NaN.

        The percentile is of those below the highest, which stands for "in any case" where many have it (a whole frame).
        """
        if self.scores is None:
            return None
        known = self.scores[np.isfinite(self.scores)]
        low, high = min(0.0, float(known.min())), float(np.percentile(known[known < known.max()], 98))
        high = high if high > low else float(known.max())
        heat: Floats = (self.scores.clip(low, high) - low) / (high - low)
        return heat


def _on_cpu(step: StepHistory) -> StepHistory:
    plan = TokenPlan(step.plan.anchors.cpu(), step.plan.assign.cpu())
    scores = None if step.scores is None else step.scores.cpu()
    return StepHistory(step.operator, step.layer, plan, scores, step.site)


def _scores(step: StepHistory, before: TokenPlan) -> Floats | None:
    """``(N,)`` score of each cell's token, NaN for the dropped; None where they tell nothing."""
    if step.scores is None or len(step.scores) == 0:
        return None
    scores: Any = step.scores.double()
    known = scores[torch.isfinite(scores)]
    if bool(scores.isnan().any()) or len(known) == 0:
        return None
    scores = scores.clamp(float(known.min()), float(known.max()))  # what stays in any case may be infinite
    if float(scores.min()) == float(scores.max()):
        return None
    assign = before.assign
    found = torch.where(assign >= 0, scores[assign.clamp(min=0)], torch.nan)
    return found.numpy()


def _over_time(token: Ints, cells: int) -> npt.NDArray[np.bool_]:
    """Whether each cell's token has cells in more than one frame of ``cells``."""
    frame = np.arange(len(token)) // cells
    alive = token >= 0
    count = int(token.max(initial=-1)) + 1
    first, last = np.full(count, len(token)), np.full(count, -1)
    np.minimum.at(first, token[alive], frame[alive])
    np.maximum.at(last, token[alive], frame[alive])
    static = np.zeros(len(token), dtype=np.bool_)
    static[alive] = (last > first)[token[alive]]
    return static
