# SPDX-License-Identifier: Apache-2.0
"""Quadtrees over the frames of a video: cells pooled two by two, as far up as they are alike. Used by STTM."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tokenprune.operators.unit_vectors import cosines_of, units

PAIRS = 4096
"""So many pairs of nodes are compared at once."""


@dataclass(frozen=True, eq=False)
class Level:
    """One level of a pyramid of T frames of H x W cells.

    Args:
        states: ``(T, H, W, D)`` fp32, the plain mean of each cell's children.
        home: ``(h * w,)`` int64, the cell of this level that each place of the finest lies in.
        share: ``(h * w,)`` fp32, the weight of each place of the finest in its cell.
        splits: ``(T, H, W)`` fp32: a cell is split into its children where ``tau_s`` is above this; -inf at the finest.
    """

    states: Tensor
    home: Tensor
    share: Tensor
    splits: Tensor


def pyramid(frames: Tensor, root_level: int, *, weighted: bool) -> list[Level]:
    """The levels of ``(T, H, W, D)`` fp32 frames, the root first, the single tokens last.

    Cells are pooled until a side is 2 or less; of an odd side the first row or column is pooled alone. The root stands
    ``root_level`` levels below the coarsest, or is the finest where there are not so many. ``weighted``: a cell is the
    mean of its tokens, not of its children.
    """
    count, height, width, _ = frames.shape
    places = torch.arange(height * width, device=frames.device)
    never = frames.new_full((count, height, width), -torch.inf)
    levels = [Level(frames, places, frames.new_ones(height * width), never)]
    while min(levels[0].states.shape[1:3]) > 2:
        levels.insert(0, _pooled(levels[0], weighted))
    levels = levels[min(root_level, len(levels) - 1) :]
    for n in range(1, len(levels) - 1):  # who is split needs all above it to be split
        inherited = _to_children(levels[n - 1].splits, levels[n].states.shape[1:3])
        levels[n] = replace(levels[n], splits=torch.maximum(levels[n].splits, inherited))
    return levels


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of quadtrees over N tokens, by the token at their upper left, and what of them meets in time.

    Args:
        node: ``(N,)`` int64, the node that each token is in.
        share: ``(N,)`` fp32, the weight of each token in its node.
        corner: ``(M,)`` int64, the token at each node's upper left, rising.
        pairs: ``(P, 2)`` int64, nodes of neighbouring frames of which one lies in the other, in order.
        alike: ``(P,)`` fp32, their cosine.
    """

    node: Tensor
    share: Tensor
    corner: Tensor
    pairs: Tensor
    alike: Tensor

    @classmethod
    def of(cls, levels: list[Level], tau_s: float) -> Nodes:
        """Those of one video: a node stays whole unless ``tau_s`` is above what one of its children is alike."""
        count, wide = len(levels[0].states), len(levels[-1].home)
        at, cell = _leaves(levels, tau_s)
        sizes = torch.tensor([level.splits.numel() for level in levels], device=at.device)
        key = ((sizes.cumsum(0) - sizes)[at] + cell).flatten()
        raster = torch.arange(count * wide, device=at.device)
        first = torch.full((int(sizes.sum()),), count * wide, device=at.device).scatter_reduce(0, key, raster, "amin")
        corner, node = torch.unique(first[key], return_inverse=True)
        share = torch.stack([level.share for level in levels])[at, raster[:wide].expand_as(at)].flatten()
        grid = node.view(count, wide)
        pairs = torch.unique(torch.stack([grid[:-1].flatten(), grid[1:].flatten()], dim=1), dim=0)
        states = _states(levels, at.flatten()[corner], cell.flatten()[corner])
        alike = [cosines_of(*(units(states[end]) for end in part.T)) for part in pairs.split(PAIRS)]
        return cls(node, share, corner, pairs, torch.cat([states.new_zeros(0), *alike]))

    @classmethod
    def together(cls, parts: Sequence[Nodes]) -> Nodes:
        """Those of videos that follow each other."""
        tokens = nodes = 0
        moved: list[Nodes] = []
        for part in parts:
            moved.append(cls(part.node + nodes, part.share, part.corner + tokens, part.pairs + nodes, part.alike))
            tokens, nodes = tokens + len(part.node), nodes + len(part.corner)
        names = ("node", "share", "corner", "pairs", "alike")
        return cls(*(torch.cat([getattr(part, name) for part in moved]) for name in names))

    def groups(self, fewest: int, threshold: float) -> Tensor:
        """``(M,)`` int64 the first node of the group that each is linked into.

        Links of at least ``threshold`` merge, the strongest first, while there are more than ``fewest`` groups.
        """
        order = torch.argsort(self.alike, descending=True, stable=True)
        links = self.pairs[order[: int((self.alike >= threshold).sum())]].tolist()
        home = list(range(len(self.corner)))
        left = len(home)

        def first(node: int) -> int:
            while home[node] != node:
                home[node] = home[home[node]]
                node = home[node]
            return node

        for link in links:
            if left == fewest:
                break
            one, other = sorted(first(node) for node in link)
            if one != other:
                home[other], left = one, left - 1
        return torch.tensor([first(node) for node in range(len(home))], device=self.node.device)


def enough(trees: Sequence[list[Level]], wanted: int, tau_s: float) -> float:
    """``tau_s``, or the least threshold above it at which the trees have ``wanted`` nodes."""
    nodes, splits, more = 0, [], []
    for levels in trees:
        nodes += levels[0].splits.numel()
        for above, level in itertools.pairwise(levels):
            children = torch.bincount(_parents(level.states.shape[1:3], level.home.device).flatten())
            splits.append(above.splits.flatten())
            more.append((children - 1).repeat(len(above.states)))
    if wanted <= nodes or not splits:
        return tau_s
    values, order = torch.cat(splits).sort(stable=True)
    counts = nodes + torch.cat(more)[order].cumsum(0)
    last = values[(counts < wanted).sum()]  # with it split there are enough
    return max(tau_s, float(torch.nextafter(last, last.new_tensor(torch.inf))))


def _leaves(levels: list[Level], tau_s: float) -> tuple[Tensor, Tensor]:
    """``(T, h * w)`` int64 the level of each place's node, and its cell there, counted over all frames."""
    count, wide = len(levels[0].states), len(levels[-1].home)
    at = torch.zeros(count, wide, dtype=torch.int64, device=levels[0].home.device)
    cell = torch.zeros_like(at)
    reached = torch.ones_like(at, dtype=torch.bool)
    frame = torch.arange(count, device=at.device)[:, None]
    for number, level in enumerate(levels):
        at = torch.where(reached, number, at)
        cell = torch.where(reached, frame * level.splits[0].numel() + level.home, cell)
        reached = reached & (level.splits.flatten(1)[:, level.home] < tau_s)
    return at, cell


def _states(levels: list[Level], at: Tensor, cell: Tensor) -> Tensor:
    """``(M, D)`` states of the cells at these levels."""
    states = levels[0].states.new_empty(len(at), levels[0].states.shape[-1])
    for number, level in enumerate(levels):
        mine = (at == number).nonzero().squeeze(1)
        states[mine] = level.states.flatten(0, 2)[cell[mine]]
    return states


def _pooled(level: Level, weighted: bool) -> Level:
    """The level above, whose cells say when they are split; this one's finest cells never are."""
    sides = level.states.shape[1:3]
    cells = torch.bincount(level.home).float()
    weights = cells if weighted else torch.ones_like(cells)
    parents = _parents(sides, level.home.device).flatten()
    totals = _folded(weights.view(1, *sides, 1), 0.0).sum(dim=(2, 4))[0]  # (H, W, 1)
    states = _folded(level.states * weights.view(*sides, 1), 0.0).sum(dim=(2, 4)) / totals
    alike = cosines_of(units(level.states), units(_to_children(states, sides)))
    weakest = _folded(alike[..., None], torch.inf).amin(dim=(2, 4))[..., 0]
    home = parents[level.home]
    share = level.share * weights[level.home] / totals.flatten()[home]
    return Level(states, home, share, weakest)


def _parents(sides: tuple[int, int] | torch.Size, device: torch.device) -> Tensor:
    """``(H, W)`` the number of the parent of each cell."""
    height, width = sides
    rows = (torch.arange(height, device=device) + height % 2) // 2
    columns = (torch.arange(width, device=device) + width % 2) // 2
    return rows[:, None] * ((width + 1) // 2) + columns


def _to_children(values: Tensor, sides: tuple[int, int] | torch.Size) -> Tensor:
    """``(T, H, W, ...)`` of the parents -> of each child its parent's."""
    return values.flatten(1, 2)[:, _parents(sides, values.device)]


def _folded(values: Tensor, fill: float) -> Tensor:
    """``(T, h, w, D) -> (T, H, 2, W, 2, D)``; where a cell has no child, ``fill``."""
    count, height, width, dim = values.shape
    padded = torch.nn.functional.pad(values, (0, 0, width % 2, 0, height % 2, 0), value=fill)
    return padded.view(count, (height + 1) // 2, 2, (width + 1) // 2, 2, dim)
