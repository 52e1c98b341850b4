# SPDX-License-Identifier: Apache-2.0
"""What TTF and DTD share: tokens too similar to one kept are dropped, above a threshold or down to a budget."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenprune.budget import Budget, as_fraction
from tokenprune.errors import BudgetError
from tokenprune.messages import shown
from tokenprune.operators.frame_shares import kept_with_scores
from tokenprune.operators.unit_vectors import STEP
from tokenprune.plan import TokenPlan

ALWAYS_KEPT = -2.0
"""In place of the cosine of a token that is compared with nothing."""


def check_cut(threshold: float | None, keep_ratio: float | None, keep: int | None) -> None:
    """Raise unless at most one of a threshold in [-1, 1], a ratio and a count is given."""
    if threshold is not None:
        as_fraction("threshold", threshold, low=-1.0, low_open=False)
    given = [threshold, keep_ratio, keep]
    if sum(value is not None for value in given) > 1:
        raise BudgetError(
            "give at most one of threshold, keep_ratio (fraction kept) and keep (count kept), got "
            f"threshold={shown(threshold)}, keep_ratio={shown(keep_ratio)}, keep={shown(keep)}"
        )
    budget_of(keep_ratio, keep)


def budget_of(keep_ratio: float | None, keep: int | None) -> Budget | None:
    """The budget, or None where none is given."""
    return None if keep_ratio is None and keep is None else Budget(keep_ratio, keep)


def cut(cosines: Tensor, threshold: float, budget: Budget | None) -> TokenPlan:
    """Drop the tokens whose resolved cosine ``(N,)`` is above ``threshold``, or the most similar down to ``budget``.

    Waits for the device where the threshold decides how many stay.
    """
    if budget is None:
        anchors = (cosines <= round(threshold / STEP) * STEP).nonzero().squeeze(1)
    else:
        anchors = torch.argsort(cosines, stable=True)[: budget.count(len(cosines))].sort().values
    return kept_with_scores(anchors, 1 - cosines)
