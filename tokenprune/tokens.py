# SPDX-License-Identifier: Apache-2.0
"""Visual tokens of one video (or image): features, their grid, and what has been merged into each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.plan import TokenPlan


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """The visual tokens of one video, in raster order (frame, row, column).

    Args:
        features: ``(N, D)`` floating-point features.
        grid: ``(T, H, W)`` of the original video; N = T*H*W unless tokens have been merged or dropped.
        sizes: ``(N,)`` int64, how many original tokens each stands for (default: ones).
        membership: ``(T*H*W,)`` int64, the place among the N of each original token, -1 for dropped
            (default: each its own).
        places: ``(N,)`` int64, the original raster index of each token: its own, or its anchor's.
        blocks: ``(N,)`` int64 block labels left by a merger, for stratified selection (default: none).

    Raises:
        InvalidValueError: shapes do not fit, or features are not floating point. Whether they are finite is checked
            where they are read: by the operators that look at them, or by :meth:`require_finite`.
    """

    features: Tensor
    grid: tuple[int, int, int]
    sizes: Tensor | None = None
    membership: Tensor | None = None
    places: Tensor | None = None
    blocks: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or not self.features.is_floating_point():
            raise InvalidValueError(
                f"features must be a floating-point (N, D) tensor, got {self.features.dtype} "
                f"{tuple(self.features.shape)}"
            )
        if len(self.grid) != 3 or any(isinstance(g, bool) or not isinstance(g, int) or g < 1 for g in self.grid):
            raise InvalidValueError(f"grid must be three integers (T, H, W) of at least 1, got {shown(self.grid)}")
        if self.membership is None and len(self.features) != self.volume:
            raise InvalidValueError(
                f"features hold {len(self.features)} tokens, but the grid {shown(self.grid)} has {self.volume}"
            )
        device = self.features.device
        defaults = {
            "sizes": (torch.ones, len(self.features)),
            "membership": (torch.arange, self.volume),
            "places": (torch.arange, len(self.features)),
            "blocks": (None, len(self.features)),
        }
        for name, (make, length) in defaults.items():
            value = getattr(self, name)
            if value is None:
                if make is not None:
                    object.__setattr__(self, name, make(length, dtype=torch.int64, device=device))
            elif value.shape != (length,) or value.dtype != torch.int64:
                raise InvalidValueError(f"{name} must be int64 of shape ({length},), got {value.dtype} {value.shape}")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def volume(self) -> int:
        """T*H*W, the number of tokens before anything was merged or dropped."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def is_full_grid(self) -> bool:
        """Whether every cell of the grid still has its own token."""
        return len(self) == self.volume

    @property
    def sources(self) -> list[Tensor]:
        """Per token the sorted original raster indices merged into it, its own (or its anchor's) among them."""
        membership = _present(self.membership).cpu()
        order = torch.argsort(membership, stable=True)
        counts = torch.bincount(membership + 1, minlength=len(self) + 1).tolist()
        return list(order.split(counts))[1:]

    def require_finite(self) -> VisualTokens:
        """Return the tokens, or raise if a feature is NaN or infinite (this waits for the device)."""
        if len(self.features) and not bool(torch.isfinite(torch.stack(torch.aminmax(self.features))).all()):
            raise InvalidValueError("visual token features must be finite, but they hold NaN or infinity")
        return self

    def through(self, plan: TokenPlan) -> VisualTokens:
        """The tokens that ``plan`` leaves: mixed features, summed sizes, the anchors' places."""
        membership = _present(self.membership)
        if plan.kept:
            moved = torch.where(membership >= 0, plan.assign[membership.clamp(min=0)], -1)
        else:
            moved = torch.full_like(membership, -1)
        blocks = plan.blocks
        if blocks is None and self.blocks is not None:
            blocks = plan.pick(self.blocks)
        return replace(
            self,
            features=plan.mix(self.features),
            sizes=plan.sum(_present(self.sizes)),
            membership=moved,
            places=plan.pick(_present(self.places)),
            blocks=blocks,
        )


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:  # __post_init__ fills the optional fields
        raise InvalidValueError("visual tokens were not initialised")
    return tensor
