# SPDX-License-Identifier: Apache-2.0
"""STTM, slow: each frame becomes a quadtree of alike tokens, and nodes that lie in each other merge over time.

The cells of a frame are pooled two by two, upward from single tokens until a side is 2 or less; of an odd side the
first row or column is pooled alone. From ``root_level`` (0: the coarsest; 1: one finer) downward a node stays whole if
each of its children has a cosine of at least ``tau_s`` to it. Then nodes of consecutive frames of which one contains
the other, with a cosine of at least ``tau_t``, are linked, and all that is linked is one token, at the top left of its
earliest node. Only children that exist are asked and averaged, at the border too.

reading: links work both ways and go on over time (the text speaks of directed pairs, the authors' code unites).
reading: a node is the plain mean of its children, a merged token that of its nodes; ``weighted``: of all tokens.
reading: with a budget ``tau_t`` is not used: links merge from the highest cosine down (ties to the earlier pair of
nodes) while there are more tokens than the budget. Where the trees alone leave too few, ``tau_s`` is raised just so
far that there are enough nodes; where all links leave too many, those stay that stand for most tokens.
reading: where the tree is not as deep as ``root_level`` asks, every token is a node.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .deciding import RESOLUTION, Decisions, budget_of
from .plain import Grid, ReferencePlan, cosine, frames_of, identity, merging

Cells = tuple[int, int]  # [first, last], both inside


@dataclass(frozen=True)
class Node:
    """A box of cells of one frame; ``share`` says with what weight each of its tokens is in its feature."""

    frame: int
    rows: Cells
    columns: Cells
    feature: np.ndarray
    share: dict[int, float]
    children: tuple[Node, ...] = ()

    @property
    def weakest(self) -> float:
        """The lowest cosine of a child to it."""
        return min(cosine(self.feature, child.feature) for child in self.children)

    def holds(self, other: Node) -> bool:
        """Whether the other's box lies in this one's."""
        return all(
            own[0] <= its[0] and its[1] <= own[1]
            for own, its in ((self.rows, other.rows), (self.columns, other.columns))
        )


def pairs(count: int) -> list[list[int]]:
    """Two by two, the first of an odd number alone."""
    first = [[0]] if count % 2 else []
    return first + [[i, i + 1] for i in range(count % 2, count, 2)]


def parent(children: Sequence[Node], weighted: bool) -> Node:
    """The node above these, in raster order."""
    sizes = [len(child.share) if weighted else 1 for child in children]
    weights = [size / sum(sizes) for size in sizes]
    return Node(
        children[0].frame,
        (children[0].rows[0], children[-1].rows[1]),
        (children[0].columns[0], children[-1].columns[1]),
        sum((weight * child.feature for weight, child in zip(weights, children, strict=True)), np.zeros(1)),
        {i: w * own for w, child in zip(weights, children, strict=True) for i, own in child.share.items()},
        tuple(children),
    )


def roots_of(x: np.ndarray, grid: Grid, t: int, root_level: int, weighted: bool) -> list[Node]:
    """The nodes of frame ``t`` from which its trees grow downward."""
    _, height, width = grid
    cells = itertools.product(range(height), range(width))
    first = [Node(t, (h, h), (w, w), x[t, h * width + w], {(t * height + h) * width + w: 1.0}) for h, w in cells]
    levels = [[first[h * width : (h + 1) * width] for h in range(height)]]
    while min(len(levels[-1]), len(levels[-1][0])) > 2:
        fine = levels[-1]
        across = pairs(len(fine[0]))
        levels.append(
            [[parent([fine[h][w] for h in down for w in ws], weighted) for ws in across] for down in pairs(len(fine))]
        )
    return [node for row in levels[max(0, len(levels) - 1 - root_level)] for node in row]


def whole(node: Node, tau: float, decide: Decisions, beyond: bool = False) -> list[Node]:
    """The nodes at which the tree stops: those whose children are alike at ``tau`` (``beyond``: more than that)."""
    if not node.children:
        return [node]
    stops = node.weakest - tau > RESOLUTION if beyond else not decide.above(tau, node.weakest)
    return [node] if stops else [stop for child in node.children for stop in whole(child, tau, decide, beyond)]


def below(node: Node) -> Iterator[Node]:
    """The node and all under it that have children."""
    if node.children:
        yield node
        for child in node.children:
            yield from below(child)


def overlapping(nodes: Sequence[Node]) -> list[tuple[float, int, int]]:
    """``(cosine, earlier node, later node)`` of all that may be linked."""
    return [
        (cosine(a.feature, b.feature), i, j)
        for (i, a), (j, b) in itertools.product(enumerate(nodes), enumerate(nodes))
        if b.frame == a.frame + 1 and (a.holds(b) or b.holds(a))
    ]


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    tau_s: float = 0.85,
    tau_t: float = 0.55,
    root_level: int = 1,
    weighted: bool = False,
) -> ReferencePlan:
    """Without a budget the thresholds decide how many tokens are left."""
    x = frames_of(features, grid)
    free = keep_ratio is None and keep is None
    budget = 1 if free else budget_of(len(features), keep_ratio, keep)
    if not free and budget >= len(features):
        return identity(features)
    decide = Decisions()
    roots = [root for t in range(grid[0]) for root in roots_of(x, grid, t, root_level, weighted)]
    nodes = [node for root in roots for node in whole(root, tau_s, decide)]
    bounds = sorted({node.weakest for root in roots for node in below(root)})
    raised = 0
    while len(nodes) < budget:
        nodes = [node for root in roots for node in whole(root, bounds[raised], decide, beyond=True)]
        raised += 1
    if raised:
        for one, next_one in itertools.pairwise(bounds[max(0, raised - 2) : raised + 1]):
            decide.note(next_one - one)
    nodes = sorted(nodes, key=lambda node: min(node.share))

    links = sorted(overlapping(nodes), key=lambda link: (-round(link[0], 10), link[1], link[2]))
    if free:
        links = [link for link in links if not decide.above(tau_t, link[0])]
    group, spare = _united(links, len(nodes), len(nodes) - budget, decide)
    tokens = {top: sum(len(nodes[i].share) for i in range(len(nodes)) if group[i] == top) for top in set(group)}
    kept = set(group)
    if not free and spare:
        order = sorted(tokens)
        kept = {order[place] for place in decide.top([tokens[top] for top in order], budget, scale=len(features))}

    home: list[int | None] = [None] * len(features)
    weights = np.zeros(len(features))
    for node, top in zip(nodes, group, strict=True):
        if top in kept:
            for token, own in node.share.items():
                home[token] = min(nodes[top].share)
                weights[token] = own * (len(node.share) if weighted else 1)
    plan = merging(home, features)
    flat = x.reshape(len(features), -1)
    for place in range(len(plan.anchors)):
        members = [i for i, own in enumerate(plan.assign) if own == place]
        plan.merged[place] = np.average(flat[members], axis=0, weights=weights[members])
    return replace(plan, margin=decide.margin, tied=decide.tied)


def _united(links: Sequence[tuple[float, int, int]], count: int, most: int, decide: Decisions) -> tuple[list[int], int]:
    """For each node the first node it is united with, by at most ``most`` unions; and how many were still wanted."""
    group = list(range(count))
    last = math.inf
    for value, i, j in links:
        low, high = sorted((group[i], group[j]))
        if low == high:
            continue
        if most == 0:
            decide.note(last - value)
            break
        group = [low if own == high else own for own in group]
        last, most = value, most - 1
    return group, most
