# SPDX-License-Identifier: Apache-2.0
"""FastVID's merging: every token of a scene into the context of each frame that has some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenprune.batching import pieces
from tokenprune.device import places_where, upload
from tokenprune.operators.unit_vectors import all_cosines, units
from tokenprune.plan import Mixing, TokenPlan
from tokenprune.points import Points
from tokenprune.segments import Segment


@dataclass(frozen=True, eq=False)
class Entries:
    """What is merged in one scene: ``source`` ``(M,)`` into ``target`` ``(M,)``, tokens all, by ``weight`` ``(M,)``.

    And where the R tokens ``rest`` ``(R,)`` of it, all that are not salient, are at home: ``home`` ``(R,)``.
    """

    target: Tensor
    source: Tensor
    weight: Tensor
    rest: Tensor
    home: Tensor


def merged_into_context(
    points: Points, scene: Segment, is_salient: Tensor, is_context: Tensor, context: Sequence[int], beta: float
) -> Entries:
    """Each token of the scene that is not salient, merged into the context of each frame that it is not itself of."""
    first, length = scene[0] * is_salient.shape[1], is_salient.shape[1]
    inside = slice(*scene)
    counts = [count for count in context[inside] if count]
    own = places_where(is_context[inside].flatten(), sum(counts)) + first
    left = int((~is_salient[inside]).sum())
    rest = places_where(~is_salient[inside].flatten(), left) + first
    links, best = _nearest(points, rest, own, counts)
    starts = torch.tensor([sum(counts[:a]) for a in range(len(counts))], device="cpu")
    anchor_frames = own[upload(starts, own.device)] // length
    is_own = is_context.flatten()[rest][:, None] & (rest[:, None] // length == anchor_frames)
    places = places_where(~is_own.flatten(), is_own.numel() - len(own))
    link = links.flatten()[places]
    taken = torch.bincount(link, minlength=len(own))
    mine = torch.maximum(1 / (taken + 1), torch.where(taken > 0, beta, 1.0))
    each = (1 - mine) / taken.clamp(min=1)
    source = rest[places // len(counts)]
    home = torch.where(is_context.flatten()[rest], rest, own[best])
    return Entries(torch.cat([own, own[link]]), torch.cat([own, source]), torch.cat([mine, each[link]]), rest, home)


def _nearest(points: Points, rest: Tensor, own: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which of the tokens ``own`` ``(C,)`` is most similar to each of ``rest`` ``(R,)``.

    Returns:
        Of each of the A parts of ``counts`` tokens ``(R, A)``, and of all ``(R,)``.
    """
    theirs = units(points.read(own))
    starts = [sum(counts[:a]) for a in range(len(counts))]
    links, best = [], []
    for piece in pieces(len(rest), 2 * (points.dim + len(own)), points.device):
        cosines = all_cosines(units(points.read(rest[piece])), theirs)
        best.append(cosines.argmax(dim=1))
        parts = zip(starts, cosines.split(counts, dim=1))
        links.append(torch.stack([part.argmax(dim=1) + start for start, part in parts], dim=1))
    return torch.cat(links), torch.cat(best)


def plan_of(stays: Tensor, scenes: Sequence[Entries], kept: int) -> TokenPlan:
    """The plan that keeps the tokens of ``stays`` ``(T, L)``, with what is merged in the ``scenes``."""
    anchors = places_where(stays.flatten(), kept)
    plan = TokenPlan.keeping(anchors, stays.numel())
    if not scenes:
        return plan
    place, assign = plan.assign, plan.assign.clone()
    for scene in scenes:
        assign[scene.rest] = place[scene.home]
    target, source, weight = (torch.cat(parts) for parts in zip(*((s.target, s.source, s.weight) for s in scenes)))
    return TokenPlan(anchors, assign, mixing=Mixing(place[target], source, weight))
