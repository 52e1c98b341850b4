# SPDX-License-Identifier: Apache-2.0
"""What ``tokenprune eval agree`` found, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenprune.cli._tables import markdown_table, print_wide

if TYPE_CHECKING:
    from tokenprune.bench.agree.figures import AgreeResult, Mean

WARNING = (
    "Agreement tells how much pruning changes what this model says, not whether it is right; where the videos are "
    "outside what the model was trained on, read the order of the rows, not the level."
)


@dataclass(frozen=True)
class Agreed:
    """What was found, and the record of it."""

    result: AgreeResult
    data: Mapping[str, Any]

    def to_dict(self) -> Mapping[str, Any]:
        """JSON-ready."""
        return self.data

    def render(self) -> None:
        """Print the table."""
        table = markdown_table("pipeline", "budget", "equal answers", "KL of the first token")
        for row in self.result.rows:
            table.add_row(row.name, f"{row.budget:.2%}", _text(row.equal, 100, "%"), _text(row.kl, 1, ""))
        setting = self.result.setting
        about = (
            f"{setting['asked']} questions about {setting['parts']} part(s) of {len(setting['videos'])} video(s); "
            "95 % intervals (bootstrap over parts) in brackets"
        )
        skipped: Sequence[str] = [f"not read: {video}: {why}" for video, why in self.result.unreadable.items()]
        print_wide([table, about, *skipped, WARNING])


def _text(mean: Mean, scale: float, unit: str) -> str:
    digits = 1 if unit else 3
    value = f"{scale * mean.value:.{digits}f}{unit}"
    if mean.low is None or mean.high is None:
        return value
    return f"{value} [{scale * mean.low:.{digits}f}, {scale * mean.high:.{digits}f}]"
