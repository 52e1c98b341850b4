# SPDX-License-Identifier: Apache-2.0
"""What is counted of each entry, clip by clip, and the row that comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenprune.bench.benchmark import Row, Share
from tokenprune.bench.paired import Paired
from tokenprune.bench.world_benchmark.asked import STRICT, WRONG
from tokenprune.bench.world_benchmark.entries import Entry, Fixed, Matched, Plain, Pressed


@dataclass(eq=False)
class Tally:
    """What is counted of one entry, on one clip or on all: sums, and one character a question in ``outcomes``."""

    outcomes: str = ""
    agreed: int = 0
    budgets: float = 0.0
    retained: float = 0.0
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Count what was counted elsewhere, too."""
        self.outcomes += other.outcomes
        self.agreed += other.agreed
        self.budgets += other.budgets
        self.retained += other.retained
        self.seconds += other.seconds

    @property
    def words(self) -> list[bool]:
        """Which answers begin with the right word."""
        return [outcome != WRONG for outcome in self.outcomes]

    @property
    def rights(self) -> list[bool]:
        """Which of them end there."""
        return [outcome == STRICT for outcome in self.outcomes]


def row_of(entry: Entry, tally: Tally, kinds: Sequence[str], others: Mapping[str, Tally]) -> Row:
    """What was counted of an entry.

    Args:
        entry: it.
        tally: of all its answers.
        kinds: of all questions, in the same order.
        others: the tallies with which it is compared, by the names that were asked for.
    """
    total = len(kinds)
    return Row(
        name=entry.name,
        series=entry.name if isinstance(entry, Plain) else entry.series,
        accuracy=Share(sum(tally.rights), total),
        word=Share(sum(tally.words), total),
        kinds=_by_kind(tally.rights, kinds),
        kinds_word=_by_kind(tally.words, kinds),
        agreement=Share(tally.agreed, total),
        budget=tally.budgets / total,
        retained=tally.retained / total,
        seconds=tally.seconds,
        pipeline=entry.pipeline.to_dict() if isinstance(entry, Fixed) else None,
        outcomes=tally.outcomes,
        paired={
            name: {"word": Paired.of(tally.words, other.words), "strict": Paired.of(tally.rights, other.rights)}
            for name, other in others.items()
        },
        nominal=None if isinstance(entry, Plain) else entry.nominal,
        notes=_notes(entry),
    )


def compared_with(entry: Entry, name: str, entries: Sequence[Entry]) -> Entry | None:
    """The entry of this name, or chance at this one's budget, or this series at it; None where there is no other."""
    found = [each for each in entries if each.name == name]
    found += [each for each in entries if isinstance(each, Matched) and (each.method, each.to) == (name, entry.name)]
    if not found and not isinstance(entry, Plain) and entry.nominal is not None:
        found = [e for e in entries if not isinstance(e, Plain) and (e.series, e.nominal) == (name, entry.nominal)]
    return next((each for each in found if each is not entry), None)


def _by_kind(right: Sequence[bool], kinds: Sequence[str]) -> dict[str, Share]:
    counted: dict[str, list[bool]] = {}
    for kind, yes in zip(kinds, right, strict=True):
        counted.setdefault(kind, []).append(yes)
    return {kind: Share(sum(found), len(found)) for kind, found in counted.items()}


def _notes(entry: Entry) -> dict[str, Any]:
    match entry:
        case Plain(sees=sees):
            return {} if sees else {"visual_features": "zero"}
        case Fixed(positions=positions, nominal=nominal, reseeded=reseeded, method=method):
            notes = {"positions": positions, "nominal_budget": nominal}
            notes |= {"seed": "the clip's"} if reseeded else {}
            notes |= {"pressed": "before the question"} if isinstance(entry, Pressed) else {}
            return notes | ({} if method is None else {"method": method})
        case Matched(to=other, nominal=nominal):
            return {"spends_as": other, "nominal_budget": nominal, "seed": "the clip's"}
