# SPDX-License-Identifier: Apache-2.0
"""What operators with a budget of their own have in common: its two fields and their check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokenprune.budget import Budget


@dataclass(frozen=True)
class Budgeted:
    """An operator that keeps a fraction, or a number, of what it is shown.

    Args:
        keep_ratio: fraction of the tokens **kept**, in (0, 1].
        keep: exact number of tokens kept, instead of ``keep_ratio``.

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
    """

    keep_ratio: float | None = None
    keep: int | None = None

    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        _ = self.budget

    @property
    def budget(self) -> Budget:
        """How many tokens stay."""
        return Budget(self.keep_ratio, self.keep)


def optional_budget(keep_ratio: float | None, keep: int | None) -> Budget | None:
    """The budget, or None where none is given and something else decides."""
    return None if keep_ratio is None and keep is None else Budget(keep_ratio, keep)
