# SPDX-License-Identifier: Apache-2.0
"""Average pooling: the simplest way to fewer tokens, whatever they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from tokenprune.about import About
from tokenprune.device import places_where
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.operator import check_modalities
from tokenprune.operators.per_frame import require_full_grid
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class AveragePool:
    """Merge the tokens of each cell of ``window`` into their plain mean, at the cell's first token.

    A baseline that no paper owns. Cells that stick out of the grid hold what is inside. About
    ``1 / (window[0] * window[1] * window[2])`` of the tokens is kept, exactly where the window divides the grid.

    >>> tokens = VisualTokens(torch.tensor([[1.0], [3.0], [5.0], [7.0]]), grid=(1, 2, 2))
    >>> AveragePool().plan(tokens).apply(tokens).features
    tensor([[4.]])

    Args:
        window: frames, rows and columns of a cell, each at least 1.
        modalities: what it is shown: ``"video"``, ``"image"`` or both.

    Raises:
        InvalidValueError: an argument is not allowed; or, by ``plan``, tokens were merged or dropped before.
    """

    window: tuple[int, int, int] = (1, 2, 2)
    modalities: tuple[str, ...] = ("video",)

    about: ClassVar[About] = About("a baseline", "no code", "N D")
    site: ClassVar[str] = "before_llm"
    needs: ClassVar[tuple[str, ...]] = ()
    needs_full_grid: ClassVar[bool] = True
    budget: ClassVar[None] = None

    def __post_init__(self) -> None:
        window: object = self.window
        sides = tuple(window) if isinstance(window, (tuple, list)) else ()
        if len(sides) != 3 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
            raise InvalidValueError(f"window must be three integers of at least 1, got {shown(window)}")
        object.__setattr__(self, "window", sides)
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Which cell each token belongs to; what the tokens hold does not matter."""
        require_full_grid(self, tokens)
        device = tokens.features.device
        sides = [torch.arange(side, device=device) // cell for side, cell in zip(tokens.grid, self.window)]
        firsts = [torch.arange(side, device=device) % cell == 0 for side, cell in zip(tokens.grid, self.window)]
        counts = [-(-side // cell) for side, cell in zip(tokens.grid, self.window)]
        cell = (sides[0][:, None, None] * counts[1] + sides[1][:, None]) * counts[2] + sides[2]
        is_first = firsts[0][:, None, None] & firsts[1][:, None] & firsts[2]
        anchors = places_where(is_first.flatten(), counts[0] * counts[1] * counts[2])
        return TokenPlan(anchors, cell.flatten(), merges=len(anchors) < len(tokens))
