# SPDX-License-Identifier: Apache-2.0
"""Average pooling over cells of the grid: the plain baseline of every merger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.budget import Budget
from tokenprune.device import upload
from tokenprune.errors import BudgetError, InvalidValueError
from tokenprune.messages import shown
from tokenprune.operator import check_modalities
from tokenprune.operators.budgeted import optional_budget
from tokenprune.operators.per_frame import require_full_grid
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Frames, rows and columns ``[start, stop)``."""


@dataclass(frozen=True)
class AveragePool:
    """Merge the tokens of each cell of the grid into their plain mean, at the cell's first token.

    A baseline that no paper owns. Cells are of ``window`` frames, rows and columns; those that stick out of the grid
    hold what is inside. About ``1 / (window[0] * window[1] * window[2])`` of the tokens is kept, exactly where the
    window divides the grid. With a budget there are exactly as many cells: the grid is halved along its longest side
    (of equal ones time, then rows; an odd one leaves the first half larger), its budget is shared in proportion to the
    halves (rounded down for the second, at least 1, no more than a half has tokens), and so on in each half down to
    one cell. Cells are then as nearly cubes as halving makes them.

    >>> tokens = VisualTokens(torch.tensor([[1.0], [3.0], [5.0], [7.0]]), grid=(1, 2, 2))
    >>> AveragePool().plan(tokens).apply(tokens).features
    tensor([[4.]])
    >>> AveragePool(keep=3).plan(tokens).apply(tokens).features.flatten()
    tensor([1., 3., 6.])

    Args:
        window: frames, rows and columns of a cell, each at least 1; left out: 1, 2, 2, unless a budget is given.
        modalities: what it is shown: ``"video"``, ``"image"`` or both.
        keep_ratio: fraction of the tokens **kept**, met exactly, instead of ``window``.
        keep: exact number of tokens kept, instead of ``window``.

    Raises:
        BudgetError: more than one of ``window``, ``keep_ratio`` and ``keep`` given, or a budget that is not allowed.
        InvalidValueError: another argument is not allowed; or, by ``plan``, tokens were merged or dropped before.
    """

    window: tuple[int, int, int] | None = None
    modalities: tuple[str, ...] = ("video",)
    keep_ratio: float | None = field(default=None, kw_only=True)
    keep: int | None = field(default=None, kw_only=True)

    about: ClassVar[About] = About("a baseline", "no code", "N D")
    site: ClassVar[str] = "before_llm"
    needs: ClassVar[tuple[str, ...]] = ()
    needs_full_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", check_modalities(self.modalities))
        budget = self.budget
        if self.window is None:
            return
        object.__setattr__(self, "window", _checked(self.window))
        if budget is not None:
            raise BudgetError(
                f"give a window or a budget, not both; got window={shown(self.window)}, "
                f"keep_ratio={shown(self.keep_ratio)}, keep={shown(self.keep)}"
            )

    @property
    def budget(self) -> Budget | None:
        """The exact budget; None where the window decides."""
        return optional_budget(self.keep_ratio, self.keep)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Which cell each token belongs to; what the tokens hold does not matter."""
        require_full_grid(self, tokens)
        total, device = len(tokens), tokens.features.device
        count = None if self.budget is None else self.budget.count(total)
        home = _windows(tokens.grid, self.window or (1, 2, 2)) if count is None else _halves(tokens.grid, count)
        cells = int((home == torch.arange(total, device="cpu")).sum())
        if cells == total:
            return TokenPlan.identity(total, device)
        return TokenPlan.merging(upload(home, device), cells)


def _checked(window: object) -> tuple[int, ...]:
    sides = tuple(window) if isinstance(window, (tuple, list)) else ()
    if len(sides) != 3 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
        raise InvalidValueError(f"window must be three integers of at least 1, got {shown(window)}")
    return sides


def _windows(grid: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    """``(N,)`` the first token of each token's cell of ``window``, on the CPU."""
    firsts = [torch.arange(side, device="cpu") // cell * cell for side, cell in zip(grid, window)]
    return ((firsts[0][:, None, None] * grid[1] + firsts[1][:, None]) * grid[2] + firsts[2]).flatten()


def _halves(grid: tuple[int, int, int], count: int) -> Tensor:
    """The same of ``count`` cells."""
    home = torch.empty(grid, dtype=torch.int64, device="cpu")
    for frames, rows, columns in _boxes(((0, grid[0]), (0, grid[1]), (0, grid[2])), count):
        first = (frames[0] * grid[1] + rows[0]) * grid[2] + columns[0]
        home[slice(*frames), slice(*rows), slice(*columns)] = first
    return home.flatten()


def _boxes(box: Box, count: int) -> Iterator[Box]:
    """``count`` boxes that fill the ``box``."""
    if count == 1:
        yield box
        return
    sides = [stop - start for start, stop in box]
    longest = sides.index(max(sides))
    start, stop = box[longest]
    middle = start + (sides[longest] + 1) // 2
    volume = sides[0] * sides[1] * sides[2]
    second = volume // sides[longest] * (stop - middle)
    share = min(max(1, count * second // volume, count - (volume - second)), second)
    for part, budget in (((start, middle), count - share), ((middle, stop), share)):
        yield from _boxes((*box[:longest], part, *box[longest + 1 :]), budget)  # type: ignore[arg-type]
