# SPDX-License-Identifier: Apache-2.0
"""Whether two ways of answering the same questions differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Paired:
    """Questions that only one of two ways gets right; the others say nothing about which is better.

    >>> Paired(wins=8, losses=0).p
    0.0078125

    Args:
        wins: right here, wrong there.
        losses: wrong here, right there.
    """

    wins: int
    losses: int

    @classmethod
    def of(cls, here: Sequence[bool], there: Sequence[bool]) -> Paired:
        """Counted over the answers to the same questions in the same order."""
        pairs = list(zip(here, there, strict=True))
        return cls(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs))

    @property
    def p(self) -> float:
        """Exact two-sided McNemar test (Q. McNemar, 1947): how likely so uneven a split is if wins are coin tosses."""
        total = self.wins + self.losses
        tail = sum(math.comb(total, k) for k in range(min(self.wins, self.losses) + 1))
        return min(1.0, 2 * tail / 2**total)  # whole numbers until here: exact for any number of questions

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"wins": self.wins, "losses": self.losses, "p": self.p}
