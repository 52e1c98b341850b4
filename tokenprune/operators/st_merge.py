# SPDX-License-Identifier: Apache-2.0
"""Spatial-temporal merging before the LLM: the first stage of PruneVid (arXiv 2412.16117, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.batching import batches
from tokenprune.budget import Budget, as_fraction, split_budget
from tokenprune.cluster import DistanceScale, dpc_knn, portion, require_distance_scale
from tokenprune.device import upload, where_fp64_is
from tokenprune.errors import BudgetError, InvalidValueError
from tokenprune.grid import GridFeatures
from tokenprune.messages import shown
from tokenprune.operators.budgeted import optional_budget
from tokenprune.operators.st_blocks import Blocks
from tokenprune.plan import TokenPlan
from tokenprune.segments import Segment, label_frames, segments_of
from tokenprune.tokens import VisualTokens

SLACK = 1e-6  # a mean cosine this little below tau reaches it: fp32 cannot tell


@dataclass(frozen=True)
class STMerge:
    """Merge what stays the same over time, then what looks alike in space.

    Stage 1 of PruneVid (arXiv 2412.16117). The frames are split into segments (DPC-KNN on frame means, made
    contiguous). Within a segment, a position whose tokens have a mean pairwise cosine of at least ``tau`` is static:
    its tokens become one, their mean over time. Static tokens of a segment, and dynamic tokens of each frame, are then
    clustered by DPC-KNN and merged into plain means. A static token's anchor is its cluster centre in the segment's
    first frame, a dynamic one's the centre. One-frame segments are all dynamic.

    Differs from the authors' code: the lower index breaks ties, not random noise; ``tau`` itself is static; any number
    of frames will do, where the code fails below seven; distances are relative by default; a budget can be met exactly.

    Published: with both other stages, LLaVA-OneVision-7B at 17 % of the tokens gives up half a point of MVBench and
    gains as much on VideoMME. Alone and as run by FastVID's authors, Qwen2.5-VL-7B keeps 88.1 % of VideoMME at 24.5 %.

    >>> still = VisualTokens(torch.randn(1, 16, 8).repeat(4, 1, 1).view(64, 8), grid=(4, 4, 4))
    >>> len(STMerge(tau=0.8, cluster_ratio=0.5).plan(still).apply(still))  # 16 positions stand still, half of them stay
    8

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

    about: ClassVar[About] = About("arXiv 2412.16117", "CC BY-NC-SA 4.0", "N^2 D / T")
    needs_full_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        as_fraction("tau", self.tau)
        as_fraction("cluster_ratio", self.cluster_ratio)
        as_fraction("temporal_segment_ratio", self.temporal_segment_ratio)
        require_distance_scale(self.distance_scale)
        for name, value in (("neighbours", self.neighbours), ("min_tokens", self.min_tokens)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidValueError(f"{name} must be an integer of at least 1, got {shown(value)}")
        if self.keep_ratio is not None and self.keep is not None:
            raise BudgetError(
                f"give at most one of keep_ratio (fraction kept) and keep (count kept), "
                f"got keep_ratio={shown(self.keep_ratio)}, keep={shown(self.keep)}"
            )
        _ = self.budget

    @property
    def budget(self) -> Budget | None:
        """The exact budget; None where the content decides how many tokens stay."""
        return optional_budget(self.keep_ratio, self.keep)

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
            features = where_fp64_is(tokens.features)
            return self._decide(GridFeatures(features, tokens.grid[0]), budget).to(tokens.features.device)

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
        centres = self._centres(grid, blocks, torch.tensor(shares, device="cpu"))
        return blocks.to_plan(centres, sum(map(min, shares, blocks.sizes)))

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

    def _centres(self, grid: GridFeatures, blocks: Blocks, shares: Tensor) -> Tensor:
        """Cluster each of B blocks into its share. Does not wait for the device.

        Args:
            grid: the video.
            blocks: its blocks.
            shares: ``(B,)`` int64, on the CPU, how many clusters each is to have; none drops the block.

        Returns:
            ``(B, L)`` int64, the position of the centre of each position of a block, -1 for dropped; entries of
            positions outside the block mean nothing.
        """
        sizes = blocks.members.sum(dim=1)
        itself = torch.arange(grid.length, device="cpu")
        centres = upload(torch.where(shares[:, None] > 0, itself, -1), grid.device)
        to_cluster = ((shares > 0) & (shares < sizes)).nonzero().squeeze(1)
        members_first = torch.argsort((~blocks.members).to(torch.uint8), dim=1, stable=True)
        for batch in batches(sizes[to_cluster].tolist(), grid.dim, grid.device):
            rows = to_cluster[batch]
            rows = rows[torch.argsort(-blocks.widths_merged[rows], stable=True)]
            largest = int(sizes[rows].max())
            places = members_first[rows, :largest]
            numbers = torch.stack([rows, sizes[rows], shares[rows], blocks.widths_merged[rows]], dim=1)
            known = upload(torch.cat([places, numbers], dim=1), grid.device)
            there = known[:, :largest]
            row, size, count, merged = known[:, largest:].unbind(1)
            clusters = dpc_knn(
                self._points(grid, blocks, rows, places),
                count,
                grid.units(merged),
                neighbours=self.neighbours,
                distance_scale=self.distance_scale,
                sizes=size if int(sizes[rows].min()) < largest else None,
            )
            centres[row[:, None], there] = there.gather(1, clusters.centres)
        return centres

    def _points(self, grid: GridFeatures, blocks: Blocks, rows: Tensor, places: Tensor) -> Tensor:
        """The points ``(G, n, D)`` of the blocks at ``rows``, static ones first, at positions ``(G, n)``."""
        widths, starts = blocks.widths_merged[rows], blocks.first_frames[rows]
        several = int((widths > 1).sum())
        parts: list[Tensor] = []
        if several:
            spans = list(zip(starts.tolist(), (starts + widths).tolist()))
            parts.append(grid.time_sums(spans[:several], places[:several]))
        if several < len(rows):
            single = starts[several:, None] * grid.length + places[several:]
            parts.append(grid.tokens(upload(single, grid.device)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)
