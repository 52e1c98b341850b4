# SPDX-License-Identifier: Apache-2.0
"""Spatial-temporal merging before the LLM: the first stage of PruneVid (arXiv 2412.16117, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.batching import batches
from tokenprune.budget import Budget, as_fraction, split_budget
from tokenprune.cluster import DistanceScale, dpc_knn, portion, require_distance_scale
from tokenprune.device import upload
from tokenprune.errors import BudgetError, InvalidValueError
from tokenprune.grid import GridFeatures
from tokenprune.operators.st_blocks import Blocks
from tokenprune.plan import TokenPlan
from tokenprune.segments import Segment, label_frames, segments_of
from tokenprune.tokens import VisualTokens

ReadPoints = Callable[[list[int], Tensor], Tensor]

SLACK = 1e-6  # a mean cosine this little below tau reaches it: fp32 cannot tell


@dataclass(frozen=True)
class STMerge:
    """Merge what stays the same over time, then what looks alike in space.

    The frames are split into segments (DPC-KNN on frame means, made contiguous). Within a segment, a position whose
    tokens have a mean pairwise cosine of at least ``tau`` is static: its tokens become one, their mean over time.
    Static tokens of a segment, and dynamic tokens of each frame, are then clustered by DPC-KNN and merged into plain
    means. A static token's anchor is its cluster centre in the segment's first frame, a dynamic one's the centre.
    One-frame segments are all dynamic.

    Args:
        tau: similarity from which a position is static, in (0, 1].
        cluster_ratio: fraction of the tokens **kept** by each clustering (rounded down, at least 1), in (0, 1].
        temporal_segment_ratio: frame clusters per frame (rounded down, at least 1), in (0, 1]; as many clusters as
            frames make each frame a segment.
        keep_ratio: fraction of the video's tokens **kept**, met exactly; static positions and blocks are found as
            ever, the budget is then split over the blocks in proportion to what they would keep without one. Where
            the static positions leave too few tokens to keep, the least similar of them become dynamic.
        keep: exact number of tokens kept, instead of ``keep_ratio``.
        distance_scale: ``"relative"`` measures distances by their root mean square in each group of tokens,
            ``"raw"`` by the features' own scale, as the paper's code does.
        neighbours: nearest tokens (itself included) that a token's density is read from.
        min_tokens: groups of up to this many tokens are not clustered (unless a budget asks for it).

    Raises:
        InvalidValueError: a parameter is not allowed (:class:`BudgetError` for ``keep_ratio`` and ``keep``).
    """

    tau: float = 0.8
    cluster_ratio: float = 0.5
    temporal_segment_ratio: float = 0.25
    keep_ratio: float | None = field(default=None, kw_only=True)
    keep: int | None = field(default=None, kw_only=True)
    distance_scale: DistanceScale = field(default="relative", kw_only=True)
    neighbours: int = field(default=7, kw_only=True)
    min_tokens: int = field(default=14, kw_only=True)

    needs_full_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        as_fraction("tau", self.tau)
        as_fraction("cluster_ratio", self.cluster_ratio)
        as_fraction("temporal_segment_ratio", self.temporal_segment_ratio)
        require_distance_scale(self.distance_scale)
        for name, value in (("neighbours", self.neighbours), ("min_tokens", self.min_tokens)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if self.keep_ratio is not None and self.keep is not None:
            raise BudgetError(
                f"give at most one of keep_ratio (fraction kept) and keep (count kept), "
                f"got keep_ratio={self.keep_ratio!r}, keep={self.keep!r}"
            )
        _ = self.budget

    @property
    def budget(self) -> Budget | None:
        """The exact budget; None where the content decides how many tokens stay."""
        return None if self.keep_ratio is None and self.keep is None else Budget(self.keep_ratio, self.keep)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Decide which tokens of one video go on, and what is merged into each.

        ``plan.blocks`` labels the blocks in time order: each segment's static tokens, then each frame's dynamic ones.

        Raises:
            InvalidValueError: tokens were merged or dropped before, have no components, or hold NaN or infinity.
        """
        if not tokens.is_full_grid:
            raise InvalidValueError(
                f"STMerge must come first: it needs all {tokens.volume} tokens of the grid {tokens.grid}, "
                f"got {len(tokens)}"
            )
        if tokens.features.shape[1] == 0:
            raise InvalidValueError("visual token features must have at least one component")
        budget = None if self.budget is None else self.budget.count(len(tokens))
        if budget == len(tokens):
            return TokenPlan.identity(len(tokens), tokens.features.device)
        with torch.no_grad(), torch.autocast(tokens.features.device.type, enabled=False):
            return self._decide(GridFeatures(tokens.features, tokens.grid[0]), budget)

    def _decide(self, grid: GridFeatures, budget: int | None) -> TokenPlan:
        """The plan. Waits for the device twice: for the segments, and for what is static in each."""
        segments = self._segments(grid)
        similarity = grid.similarity(segments)
        blocks = Blocks(segments, similarity >= self.tau - SLACK)
        if budget is not None:
            blocks = blocks.with_room_for(budget, similarity, resolution=SLACK)
        shares = [size if size <= self.min_tokens else portion(size, self.cluster_ratio) for size in blocks.sizes]
        if budget is not None:
            shares = split_budget(shares, blocks.sizes, budget)
        counts = torch.tensor(shares, device="cpu")

        def static_points(rows: list[int], positions: Tensor) -> Tensor:
            return grid.time_sums([segments[row] for row in rows], positions)

        def dynamic_points(rows: list[int], positions: Tensor) -> Tensor:
            frames = torch.tensor(rows, device="cpu")[:, None]
            return grid.tokens(upload(frames * grid.length + positions, grid.device))

        moving = ~blocks.still[blocks.segment_of]
        one = torch.ones_like(blocks.segment_of)
        static = self._centres(blocks.still, counts[blocks.static_labels], grid, blocks.widths, static_points)
        dynamic = self._centres(moving, counts[blocks.dynamic_labels], grid, one, dynamic_points)
        return blocks.to_plan(static, dynamic, sum(map(min, shares, blocks.sizes)))

    def _segments(self, grid: GridFeatures) -> list[Segment]:
        clusters = portion(grid.frames, self.temporal_segment_ratio)
        labels = torch.arange(grid.frames, device=grid.device)
        if clusters < grid.frames:
            labels = label_frames(
                grid.frame_sums(),
                clusters,
                unit=grid.units(torch.full_like(labels[:1], grid.length)),
                neighbours=self.neighbours,
                distance_scale=self.distance_scale,
            )
        *found, is_finite = torch.cat([labels, grid.is_finite[None].long()]).tolist()
        if not is_finite:
            raise InvalidValueError("visual token features must be finite, but they hold NaN or infinity")
        return segments_of(found)

    def _centres(self, members: Tensor, shares: Tensor, grid: GridFeatures, merged: Tensor, read: ReadPoints) -> Tensor:
        """Cluster each of R blocks into its share. Does not wait for the device.

        Args:
            members: ``(R, L)`` bool, on the CPU, the positions of each block.
            shares: ``(R,)`` int64, on the CPU, how many clusters each is to have; none drops the block.
            grid: the video.
            merged: ``(R,)`` int64, on the CPU, how many tokens each of a block's points sums up.
            read: the points ``(G, n, D)`` of some blocks at positions ``(G, n)``, which are on the CPU.

        Returns:
            ``(R, L)`` int64, the position of the centre of each member, -1 for dropped; others mean nothing.
        """
        sizes = members.sum(dim=1)
        itself = torch.arange(members.shape[1], device="cpu")
        centres = upload(torch.where(shares[:, None] > 0, itself, -1), grid.device)
        to_cluster = ((shares > 0) & (shares < sizes)).nonzero().squeeze(1)
        members_first = torch.argsort((~members).to(torch.uint8), dim=1, stable=True)
        for batch in batches(sizes[to_cluster].tolist(), grid.dim, grid.device):
            rows = to_cluster[batch]
            largest, smallest = int(sizes[rows[0]]), int(sizes[rows[-1]])
            places = members_first[rows, :largest]
            known = torch.cat([places, rows[:, None], sizes[rows, None], shares[rows, None], merged[rows, None]], dim=1)
            known = upload(known, grid.device)
            places_there = known[:, :largest]
            row, size, count, one_point = known[:, largest:].unbind(1)
            clusters = dpc_knn(
                read(rows.tolist(), places),
                count,
                grid.units(one_point),
                neighbours=self.neighbours,
                distance_scale=self.distance_scale,
                sizes=size if smallest < largest else None,
            )
            centres[row[:, None], places_there] = places_there.gather(1, clusters.centres)
        return centres
