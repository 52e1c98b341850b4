# SPDX-License-Identifier: Apache-2.0
"""Which columns each visual token of a conversation came from, turn by turn; of a turn nothing else is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tokenprune.plan import TokenPlan
from tokenprune.runtime.state import RowState


@dataclass(frozen=True, eq=False)
class Origins:
    """The visual tokens of one turn, those of the turns before included.

    Args:
        rows: per row of the user's batch the columns of its visual tokens, and their plan.
        first_passed: logical column at which the ``input_ids`` begin that the user passed.
        first_new: logical column at which this turn's new tokens begin.
        earlier: the turn before on the same cache, or None.
    """

    rows: list[tuple[Tensor, TokenPlan]]
    first_passed: int
    first_new: int
    earlier: Origins | None

    @classmethod
    def of(cls, rows: Sequence[RowState], first_passed: int, first_new: int, earlier: Origins | None) -> Origins:
        """Of finished rows; scores and whatever else they hold is let go."""
        kept: list[tuple[Tensor, TokenPlan]] = []
        for row in rows:
            columns = torch.cat([span.columns for span in row.spans]) if row.spans else torch.zeros(0).long()
            kept.append((columns, TokenPlan(row.plan.anchors, row.plan.assign)))
        return cls(kept, first_passed, first_new, earlier)

    @cached_property
    def sources(self) -> list[list[Tensor]]:
        """Per row, for each visual token of :attr:`Report.kept`: the sorted columns, as passed, merged into it."""
        found: list[list[Tensor]] = []
        offset = self.first_new - self.first_passed
        for row, (there, plan) in enumerate(self.rows):
            columns, assign = there.cpu() + offset, plan.assign.cpu()
            order = assign.argsort(stable=True)
            groups = order[(assign < 0).sum() :].split(assign[assign >= 0].bincount(minlength=plan.kept).tolist())
            found.append(self._earlier_sources(row) + [columns[group] for group in groups])
        return found

    def _earlier_sources(self, row: int) -> list[Tensor]:
        """Sources of an earlier turn's visual tokens, where that turn is part of the ``input_ids`` passed now."""
        if self.earlier is None or row >= len(self.earlier.rows):
            return []
        shift = self.earlier.first_passed - self.first_passed
        moved = [columns + shift for columns in self.earlier.sources[row]]
        return [columns for columns in moved if bool((columns >= 0).all())]
