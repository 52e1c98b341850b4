# SPDX-License-Identifier: Apache-2.0
"""What must hold of a plan, by value."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tokenprune.device import where_fp64_is
from tokenprune.mixing import Mixing


class PlanValues(Protocol):
    """What the laws read of a :class:`tokenprune.TokenPlan`."""

    @property
    def anchors(self) -> Tensor: ...
    @property
    def assign(self) -> Tensor: ...
    @property
    def weights(self) -> Tensor | None: ...
    @property
    def merges(self) -> bool: ...
    @property
    def mixing(self) -> Mixing | None: ...


def laws_of(plan: PlanValues) -> dict[str, Tensor]:
    """What must hold -> ``()`` bool, nothing of which waits for the device."""
    kept, total = len(plan.anchors), len(plan.assign)
    laws: dict[str, Tensor] = {}
    if kept:
        laws |= _laws_of_anchors(plan.anchors, plan.assign)
    if total:
        low, high = torch.aminmax(plan.assign)
        laws[f"assign must hold places in [-1, {kept})"] = (low >= -1) & (high < kept)
    if not plan.merges:
        laws["only anchors are assigned where merges is False"] = (plan.assign >= 0).sum() == kept
    if plan.weights is not None:
        laws |= _laws_of_weights(plan.weights, plan.assign, kept)
    if plan.mixing is not None and len(plan.mixing.rows):
        (first, last), (low, high) = torch.aminmax(plan.mixing.rows), torch.aminmax(plan.mixing.columns)
        inside = (first >= 0) & (last < kept) & (low >= 0) & (high < total)
        laws[f"mixing must hold places below {kept} and indices below {total}"] = inside
        laws["mixing weights must be finite"] = torch.isfinite(plan.mixing.weights).all()
    return laws


def _laws_of_anchors(anchors: Tensor, assign: Tensor) -> dict[str, Tensor]:
    total = len(assign)
    inside = (anchors[0] >= 0) & (anchors[-1] < total) & (anchors.diff() > 0).all()
    own = assign[anchors.clamp(0, total - 1)] == torch.arange(len(anchors), device=assign.device)
    return {
        f"anchors must be strictly increasing indices in [0, {total})": inside,
        "an anchor must be assigned to its own place": own.all(),
    }


def _laws_of_weights(weights: Tensor, assign: Tensor, kept: int) -> dict[str, Tensor]:
    device = assign.device
    wide = where_fp64_is(weights).double()
    # Places out of range, which another law names, must not be looked up.
    place = where_fp64_is(torch.where((assign >= 0) & (assign < kept), assign, kept))
    mass = torch.zeros(kept + 1, dtype=torch.float64, device=place.device).index_add_(0, place, wide)
    return {
        "weights must be finite and not negative": (torch.isfinite(wide) & (wide >= 0)).all().to(device),
        "the weights of the tokens merged into an anchor must not sum to zero": (mass[:-1] > 0).all().to(device),
    }
