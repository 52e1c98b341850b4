# SPDX-License-Identifier: Apache-2.0
"""FlashVID's two parts: tokens picked as attended and diverse, and trees of the others through time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenprune.batching import pieces
from tokenprune.device import upload
from tokenprune.operators.unit_vectors import STEP, all_cosines, resolved
from tokenprune.segments import Segment

FARTHEST = 2.0  # the largest 1 - cosine


def pick_diverse(units: Tensor, attention: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pick in each frame, again and again, the token of largest attention x distance to the nearest picked.

    Args:
        units: ``(T, L, D)`` of length 1.
        attention: ``(T, L)``.
        counts: how many of each frame.

    Returns:
        Which are picked ``(T, L)``, and what each was picked by, or could be next ``(T, L)``.
    """
    frames, length, dim = units.shape
    largest = attention.amax(dim=1, keepdim=True)
    weights = (attention / torch.where(largest > 0, largest, 1)).float()
    share = upload(torch.tensor(counts, device="cpu"), units.device)[:, None]
    picked = torch.zeros(frames, length, dtype=torch.bool, device=units.device)
    scores = torch.zeros(frames, length, device=units.device)
    for piece in pieces(frames, length * (dim + 3 * length), units.device):
        distance = (1 - all_cosines(units[piece], units[piece])).clamp_(min=0)
        distance.diagonal(dim1=1, dim2=2).fill_(FARTHEST)  # a token itself is not another one
        mine, weight, reach = picked[piece], weights[piece], distance.amin(dim=1)
        for step in range(max(counts[piece])):
            wish = resolved(weight * reach).masked_fill(mine, -torch.inf)
            best = wish.argmax(dim=1, keepdim=True)
            counts_now = step < share[piece]
            mine.scatter_(1, best, mine.gather(1, best) | counts_now)
            scores[piece].scatter_(1, best, wish.gather(1, best))
            nearer = distance.gather(1, best[:, :, None].expand(-1, 1, length)).squeeze(1)
            reach = torch.where(counts_now, nearer if step == 0 else torch.minimum(reach, nearer), reach)
        scores[piece] = torch.where(mine, scores[piece], resolved(weight * reach))
    return picked, scores


@dataclass(frozen=True, eq=False)
class Trees:
    """A forest over N tokens.

    Args:
        roots: ``(N,)`` int64, the root of each token; of a token in no tree: itself.
        linked: ``(N,)`` bool, whether it hangs on another.
        children: ``(N,)`` int64, how many hang on it directly.
    """

    roots: Tensor
    linked: Tensor
    children: Tensor


def grow_trees(
    units: Tensor, picked: Tensor, scenes: Sequence[Segment], left: Sequence[int], threshold: float
) -> Trees:
    """Link tokens to the most similar one of the frame before.

    Args:
        units: ``(T, L, D)`` of length 1.
        picked: ``(T, L)`` the tokens that are in no tree.
        scenes: frames within which trees stay.
        left: of each scene, how many trees there are to be at least: its weakest links are not made.
        threshold: cosine that a link is above.
    """
    frames, length, _ = units.shape
    strength, target = _strongest(units, picked)
    starts = torch.tensor([start for start, _ in scenes], device="cpu")
    strength[upload(starts, units.device)] = -torch.inf
    widths = torch.tensor([stop - start for start, stop in scenes], device="cpu")
    scene = upload(torch.repeat_interleave(torch.arange(len(scenes), device="cpu"), widths), units.device)
    free = torch.zeros(len(scenes), dtype=torch.int64, device=units.device).index_add_(0, scene, (~picked).sum(dim=1))
    most = free - upload(torch.tensor(left, device="cpu"), units.device)

    order = torch.argsort(strength.flatten(), descending=True, stable=True)
    order = order[torch.argsort(scene[order // length], stable=True)]  # scene by scene, each the strongest first
    place = torch.arange(frames * length, device=units.device)
    rank = torch.empty_like(order)
    rank[order] = place - upload(starts, units.device)[scene[order // length]] * length
    least = round(threshold / STEP) * STEP
    linked = (strength > least).flatten() & (rank < most[scene].repeat_interleave(length))
    parents = torch.where(linked, target.flatten(), place)
    children = torch.bincount(parents[linked], minlength=len(place))
    roots = parents
    for _ in range(int(widths.max()).bit_length()):
        roots = roots[roots]
    return Trees(roots, linked, children)


def _strongest(units: Tensor, picked: Tensor) -> tuple[Tensor, Tensor]:
    """``(T, L)`` the highest cosine of a token to one of the frame before, and which it is; picked ones have none."""
    frames, length, dim = units.shape
    strength = torch.full((frames, length), -torch.inf, device=units.device)
    target = torch.zeros(frames, length, dtype=torch.int64, device=units.device)
    for piece in pieces(frames - 1, length * (2 * dim + 3 * length), units.device):
        before, now = piece, slice(piece.start + 1, piece.stop + 1)
        cosines = all_cosines(units[now], units[before]).masked_fill(picked[before, None], -torch.inf)
        best = cosines.argmax(dim=2, keepdim=True)
        first = torch.arange(before.start, before.stop, device=units.device)[:, None] * length
        target[now] = best.squeeze(2) + first
        strength[now] = cosines.gather(2, best).squeeze(2).masked_fill(picked[now], -torch.inf)
    return strength, target
