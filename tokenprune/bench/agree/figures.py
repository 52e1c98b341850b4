# SPDX-License-Identifier: Apache-2.0
"""Means over parts of videos, with intervals that know that questions about one part go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
FORMAT = "tokenprune.agree"
VERSION = 1


@dataclass(frozen=True)
class Mean:
    """A mean over all questions.

    Args:
        value: it.
        low: lower end of its 95 % interval; None where one part alone was asked about.
        high: upper end.
    """

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, parts: Sequence[Sequence[float]]) -> Mean:
        """The mean of all numbers; its interval by drawing whole parts anew (percentile bootstrap, seeded).

        >>> Mean.of([[1.0, 1.0], [1.0]])
        Mean(value=1.0, low=1.0, high=1.0)

        Args:
            parts: the numbers of each part.
        """
        sums = np.array([sum(part) for part in parts], dtype=float)
        counts = np.array([len(part) for part in parts], dtype=float)
        value = float(sums.sum() / counts.sum())
        if len(parts) < 2:
            return cls(value, None, None)
        drawn = np.random.default_rng(0).integers(len(parts), size=(RESAMPLES, len(parts)))
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return cls(value, float(low), float(high))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class AgreeRow:
    """How near one pipeline stays to the plain model.

    Args:
        name: of the pipeline.
        equal: share of answers equal to the plain model's, token by token.
        kl: Kullback-Leibler divergence of the first token's distribution from the plain model's, in nats.
        budget: visual tokens seen, mean over layers, as a fraction of all.
    """

    name: str
    equal: Mean
    kl: Mean
    budget: float

    @classmethod
    def of(cls, name: str, entries: Sequence[Mapping[str, Any]]) -> AgreeRow:
        """Counted over the parts that could be read."""
        rows = [entry["rows"][name] for entry in entries]
        budgets = [budget for row in rows for budget in row["budget"]]
        equal, kl = (Mean.of([row[count] for row in rows]) for count in ("equal", "kl"))
        return cls(name, equal, kl, sum(budgets) / len(budgets))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        budget = {"layer_averaged_retained": self.budget}
        return {"name": self.name, "equal": self.equal.to_dict(), "kl": self.kl.to_dict(), **budget}


@dataclass(frozen=True)
class AgreeResult:
    """What was found.

    Args:
        setting: what was asked of what, JSON-ready.
        rows: one a pipeline.
        unreadable: video -> why it could not be read.
    """

    setting: Mapping[str, Any]
    rows: Sequence[AgreeRow]
    unreadable: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "setting": dict(self.setting),
            "rows": [row.to_dict() for row in self.rows],
            "unreadable": dict(self.unreadable),
        }
