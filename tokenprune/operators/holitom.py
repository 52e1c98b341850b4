# SPDX-License-Identifier: Apache-2.0
"""HoliTom, its part before the LLM: windows in which most stands still, merged in time, then pruned and merged."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.batching import pieces
from tokenprune.budget import as_fraction, split_budget
from tokenprune.device import upload, where_fp64_is
from tokenprune.operator import check_modalities
from tokenprune.operators.budgeted import Budgeted
from tokenprune.operators.peaks import centres_of
from tokenprune.operators.per_frame import ranks, require_full_grid, require_signal, to_the_frame_before
from tokenprune.operators.st_blocks import Blocks
from tokenprune.plan import TokenPlan
from tokenprune.points import RESOLUTION, Points, stepped, undisturbed
from tokenprune.segments import Segment
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class HoliTom(Budgeted):
    """Merge over time what stands still, cluster that in space, and keep the most attended of what moves.

    HoliTom (arXiv 2505.21334), the outer part. A place is still from frame t to t+1 if the cosine of its tokens is
    above ``tau``. The video is cut into windows such that the sum of (places still all through a window) x (its frames
    - 1) is largest; of equal cuttings the one with shorter windows at the end. In a window of two or more frames the
    tokens of a still place become their mean over time, in the window's first frame, and these are clustered by density
    peaks (neighbours: as many as clusters, up to 7); a centre c becomes ``beta c + (1 - beta) mean(the others of its
    cluster)``. Of the rest of each frame the tokens of largest ``encoder_column`` stay, the others are dropped.

    Differs from the authors' code: the budget is exact, shared by largest remainder over the still tokens of each
    window and the others of each frame, in proportion to how many they are, one each if it has as many (theirs rounds
    each part by itself, and loses a part that rounds to none); where fewer tokens than the budget would be left, still
    places of the lowest cosines are not merged. The mean is over the others of a cluster, without its centre, as in
    their code; a centre alone stays as it is. Clustering looks at 2 neighbours at least, where they leave it to noise.
    Their option that clusters the moving tokens as well (D above 0) never ran and is not there. Cosines are resolved to
    1e-6, ties go to the lower index, tokens stay in raster order.

    Published: with its inner half, LLaVA-OneVision-7B keeps 99.1 % of its scores at 6.9 % of the FLOPs. As run by
    others, with norms for attention, Qwen3-VL-8B keeps 93.8 and 91.0 % at 25 and 15 % of the tokens.

    >>> signals = {"encoder_column": torch.tensor([0.1, 0.7, 0.1, 0.2])}
    >>> still = VisualTokens(torch.tensor([[1.0], [2.0], [3.0], [-2.0]]), (2, 1, 2), signals=signals)
    >>> HoliTom(keep=2).plan(still).assign
    tensor([ 0,  1,  0, -1])

    Args:
        keep_ratio: fraction of the tokens **kept**, in (0, 1]; the paper's ``R``.
        keep: exact number of tokens kept, instead of ``keep_ratio``.
        tau: cosine above which a place is still, in [-1, 1].
        beta: weight of a centre in what its cluster becomes, in [0, 1].
        modalities: what it is shown: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
        InvalidValueError: another argument is not allowed; or, by ``plan``, tokens were merged or dropped before, or
            features or signal are missing or not finite.
    """

    tau: float = 0.8
    beta: float = 0.6
    modalities: tuple[str, ...] = ("video",)

    about: ClassVar[About] = About("arXiv 2505.21334", "Apache-2.0", "N D + T N")
    site: ClassVar[str] = "before_llm"
    needs: ClassVar[tuple[str, ...]] = ("encoder_column",)
    needs_full_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        as_fraction("tau", self.tau, low=-1.0, low_open=False)
        as_fraction("beta", self.beta, low_open=False)
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Decide which tokens go on, and what is merged into each; ``plan.scores`` is ``encoder_column``."""
        require_full_grid(self, tokens)
        total, device = len(tokens), tokens.features.device
        column = require_signal(self, tokens, "encoder_column").to(device)
        kept = self.budget.count(total)
        if kept == total:
            return TokenPlan.identity(total, device)
        with undisturbed(device):
            points, frames = Points(tokens.features), tokens.grid[0]
            blocks = self._blocks(points, frames, kept)
            shares = split_budget(blocks.sizes, blocks.sizes, kept)
            centres = _most_attended(blocks, where_fp64_is(column).view(frames, -1), shares)
            for number, segment in blocks.static_blocks:
                places = blocks.members[number].nonzero().squeeze(1)
                if 0 < shares[number] < len(places):
                    own = upload(places, points.device)
                    centres[number, own] = own[_clustered(points, segment, own, shares[number], centres.shape[1])]
            plan = blocks.to_plan(centres, kept)
            plan = replace(plan, weights=self._weights(plan, blocks, centres.shape[1]))
        return replace(plan.to(device), scores=column.detach())

    def _blocks(self, points: Points, frames: int, budget: int) -> Blocks:
        """The windows and what stands still in each, with room for the budget. Waits for the device once."""
        length, least = points.count // frames, round(self.tau / RESOLUTION)
        cosines = stepped(to_the_frame_before(points, frames)).cpu()
        windows = _windows(cosines > least)
        alone = cosines.new_full((1, length), -torch.inf)
        lowest = torch.cat([cosines[a : b - 1].amin(0, keepdim=True) if b - a > 1 else alone for a, b in windows])
        return Blocks(windows, lowest > least).with_room_for(budget, lowest, resolution=1)

    def _weights(self, plan: TokenPlan, blocks: Blocks, length: int) -> Tensor:
        """``(N,)`` weight of each token in its anchor, of which only the proportions matter."""
        place = plan.assign.clamp(min=0)
        widths = upload(blocks.widths_merged, place.device)[plan.blocks]
        others = torch.div(plan.sum(torch.ones_like(place)), widths, rounding_mode="floor") - 1
        is_centre = torch.arange(len(place), device=place.device) % length == plan.anchors[place] % length
        weights = torch.where(is_centre, self.beta, (1 - self.beta) / others[place].clamp(min=1))
        return torch.where(others[place] > 0, weights, 1.0)


def _windows(still: Tensor) -> list[Segment]:
    """The windows of frames with the largest gain, from whether each place is still ``(T - 1, L)`` bool.

    A window's gain is the number of tokens that merging all that is still in it saves.
    """
    frames = len(still) + 1
    gains = torch.zeros(frames, frames, dtype=torch.int64)
    for start in range(frames - 1):
        through = still[start:].to(torch.uint8).cumprod(dim=0).sum(dim=1)
        gains[start, start + 1 :] = through * torch.arange(1, frames - start)
    best, begin = [0], [0]
    for last, column in enumerate(gains.T.tolist()):
        first = max(range(last, -1, -1), key=lambda start: best[start] + column[start])  # of equals the shortest
        best.append(best[first] + column[first])
        begin.append(first)
    stops = [frames]
    while begin[stops[-1]]:
        stops.append(begin[stops[-1]])
    return list(itertools.pairwise([0, *reversed(stops)]))


def _most_attended(blocks: Blocks, column: Tensor, shares: Sequence[int]) -> Tensor:
    """``(B, L)`` each position itself, or -1 for the least attended beyond the share of a block of one frame."""
    frame, width, members, share = (
        upload(part, column.device)
        for part in (blocks.first_frames, blocks.widths_merged, blocks.members, torch.tensor(shares, device="cpu"))
    )
    rank = ranks(column[frame].masked_fill(~members, -torch.inf))
    position = torch.arange(column.shape[1], device=column.device)
    return torch.where((rank < share[:, None]) | ((width > 1) & (share > 0))[:, None], position, -1)


def _clustered(points: Points, segment: Segment, places: Tensor, count: int, length: int) -> Tensor:
    """``(n,)`` which of the ``places`` ``(n,)`` is each one's centre, by their means over the segment's frames."""
    frames = torch.arange(*segment, device=places.device)[:, None] * length
    parts = [
        points.read((frames + places[piece]).flatten()).view(len(frames), -1, points.dim).mean(dim=0)
        for piece in pieces(len(places), len(frames) * points.dim, points.device)
    ]
    itself = torch.arange(len(places), device=places.device)
    return centres_of(torch.cat(parts), itself, [len(places)], [count], points.unit)
