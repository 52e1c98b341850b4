# SPDX-License-Identifier: Apache-2.0
"""Visual tokens of one video (or image): features, their grid, and what has been merged into each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.plan import TokenPlan
from tokenprune.signals import carry_signals, check_signals

Slice = slice


@dataclass(frozen=True)
class TokenSpan:
    """One video or image among the tokens.

    >>> TokenSpan("image", (1, 2, 3), slice(4, 10)).grid
    (1, 2, 3)

    Args:
        modality: ``"video"`` or ``"image"``.
        grid: ``(T, H, W)`` it had at first.
        slice: where its tokens are among the N.
    """

    modality: str
    grid: tuple[int, int, int]
    slice: Slice


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """The visual tokens of one video or image, in raster order (frame, row, column), or of a prompt row's several.

    >>> tokens = VisualTokens(torch.randn(12, 8), grid=(3, 2, 2))
    >>> len(TokenPlan.keeping(torch.tensor([0, 5]), 12).apply(tokens))
    2

    Args:
        features: ``(N, D)`` floating-point features; inside the LLM the hidden states after the layer.
        grid: ``(T, H, W)`` of the original video; N = T*H*W unless tokens have been merged or dropped. Of several
            videos and images: the number of their cells, 1, 1; each one's own is in ``spans``.
        sizes: ``(N,)`` int64, how many original tokens each stands for (default: ones).
        membership: ``(T*H*W,)`` int64, the place among the N of each original token, -1 for dropped
            (default: each its own).
        places: ``(N,)`` int64, the original raster index of each token: its own, or its anchor's.
        blocks: ``(N,)`` int64 block labels left by a merger, for stratified selection (default: none).
        signals: what else is known, by name (:data:`tokenprune.signals.RULES`); an operator finds those it ``needs``.
        spans: the videos and images among the tokens, in order (default: one video).

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
    signals: Mapping[str, Any] = field(default_factory=dict[str, Any])
    spans: tuple[TokenSpan, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.features, Tensor):
            raise InvalidValueError(f"features must be a floating-point (N, D) tensor, got {shown(self.features)}")
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
        check_signals(self.signals, len(self))
        if not self.spans:
            object.__setattr__(self, "spans", (TokenSpan("video", self.grid, slice(0, len(self))),))

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

    def labelled_blocks(self) -> Tensor:
        """``(N,)`` int64 label of the block each token belongs to; where no merger left blocks: its frame."""
        if self.blocks is not None:
            return self.blocks
        cells = self.grid[1] * self.grid[2]
        return torch.div(_present(self.places), cells, rounding_mode="floor")

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
            signals=carry_signals(self.signals, plan),
            spans=_followed(self.spans, plan),
        )


def _followed(spans: Sequence[TokenSpan], plan: TokenPlan) -> tuple[TokenSpan, ...]:
    """Where each span's tokens are among those that are left; of several, this waits for the device."""
    if len(spans) == 1:
        return (replace(spans[0], slice=slice(0, plan.kept)),)
    edges = plan.anchors.new_tensor([0, *(span.slice.stop for span in spans)])
    found = torch.searchsorted(plan.anchors, edges).tolist()
    return tuple(replace(s, slice=slice(a, b)) for s, a, b in zip(spans, found, found[1:]))


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:  # __post_init__ fills the optional fields
        raise InvalidValueError("visual tokens were not initialised")
    return tensor
