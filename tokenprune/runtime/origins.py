# SPDX-License-Identifier: Apache-2.0
"""Which columns each visual token of a conversation came from, turn by turn; of a turn nothing else is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from tokenprune.plan import TokenPlan
from tokenprune.runtime.span import RunningSpan


@dataclass(frozen=True, eq=False)
class Origins:
    """The visual tokens of one turn, those of the turns before included.

    Args:
        rows: per row of the user's batch the columns and the plan of each span of this turn.
        first_passed: logical column at which the ``input_ids`` begin that the user passed.
        first_new: logical column at which this turn's new tokens begin.
        earlier: the turn before on the same cache, or None.
    """

    rows: list[list[tuple[Tensor, TokenPlan]]]
    first_passed: int
    first_new: int
    earlier: Origins | None

    @classmethod
    def of(
        cls, spans: Sequence[Sequence[RunningSpan]], first_passed: int, first_new: int, earlier: Origins | None
    ) -> Origins:
        """Of finished spans; scores and whatever else they hold is let go."""
        rows = [[(s.span.columns, TokenPlan(s.plan.anchors, s.plan.assign)) for s in row] for row in spans]
        return cls(rows, first_passed, first_new, earlier)

    @cached_property
    def sources(self) -> list[list[Tensor]]:
        """Per row, for each visual token of :attr:`Report.kept`: the sorted columns, as passed, merged into it."""
        found: list[list[Tensor]] = []
        offset = self.first_new - self.first_passed
        for row, spans in enumerate(self.rows):
            merged: list[tuple[int, Tensor]] = []
            for there, plan in spans:
                columns, assign, anchors = there.cpu(), plan.assign.cpu(), plan.anchors.cpu()
                order = assign.argsort(stable=True)
                groups = order[(assign < 0).sum() :].split(assign[assign >= 0].bincount().tolist())
                merged += [(int(columns[a]), columns[group] + offset) for a, group in zip(anchors, groups)]
            found.append(
                self._earlier_sources(row) + [columns for _, columns in sorted(merged, key=lambda pair: pair[0])]
            )
        return found

    def _earlier_sources(self, row: int) -> list[Tensor]:
        """Sources of an earlier turn's visual tokens, where that turn is part of the ``input_ids`` passed now."""
        if self.earlier is None or row >= len(self.earlier.rows):
            return []
        shift = self.earlier.first_passed - self.first_passed
        moved = [columns + shift for columns in self.earlier.sources[row]]
        return [columns for columns in moved if bool((columns >= 0).all())]
