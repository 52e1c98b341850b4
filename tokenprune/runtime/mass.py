# SPDX-License-Identifier: Apache-2.0
"""Who inherits the attention mass of a dropped token: the kept token that looks most like it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenprune.batching import pieces
from tokenprune.device import where_fp64_is
from tokenprune.plan import TokenPlan

NEAR = 1e-9
"""Squared distances this little apart, relative to the features' squares, are equal: the lower index inherits."""


def with_heirs(plan: TokenPlan, features: Tensor, left: Tensor, counts: Sequence[int]) -> TokenPlan:
    """The plan in which every dropped token is given to the nearest kept one, for summing masses.

    Nearest by Euclidean distance, first among the tokens of its own video, and of the whole row where that has none
    left; ties go to the lower index. Waits for the device.

    Args:
        plan: over the N visual tokens of a row.
        features: ``(N, D)`` what the dropped are compared by.
        left: ``(K, D)`` what the kept are compared by, as the plan left them.
        counts: how many of the N each of the row's videos and images has, in order.
    """
    dropped = (plan.assign < 0).nonzero().squeeze(1)
    if not len(dropped) or not plan.kept:
        return plan
    video = torch.repeat_interleave(
        torch.arange(len(counts), device=dropped.device), torch.tensor(counts, device=dropped.device)
    )
    kept_video = video[plan.anchors]
    kept, features = where_fp64_is(left).double(), where_fp64_is(features)
    squares = kept.square().sum(dim=1)
    assign = plan.assign.clone()
    for part in pieces(len(dropped), 2 * plan.kept + kept.shape[1], features.device):
        rows = dropped[part]
        mine = features[rows.to(features.device)].double()
        own = mine.square().sum(dim=1, keepdim=True)
        distance = own + squares - 2.0 * (mine @ kept.T)
        elsewhere = (video[rows][:, None] != kept_video).to(features.device)
        elsewhere &= ~elsewhere.all(dim=1, keepdim=True)
        distance = distance.masked_fill(elsewhere, torch.inf)
        near = distance <= distance.amin(dim=1, keepdim=True) + NEAR * (own + squares.amax())
        assign[rows] = near.to(torch.uint8).argmax(dim=1).to(assign.device)
    return TokenPlan(plan.anchors, assign)
