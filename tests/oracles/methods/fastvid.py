# SPDX-License-Identifier: Apache-2.0
"""FastVID, slow: segments of frames; in each the most attended tokens, and contextual ones that take in the rest.

Of frames that look alike in a row (a run) only the last carries tokens. Every ``frame_step``-th carrying frame is an
anchor frame: its contextual tokens are centres of clusters among its tokens that are not salient, and into them goes
every token of the segment that is neither salient nor contextual there. So one token may feed several anchors.

reading: the budget is split over the segments by their tokens, largest remainder, none without while there is one each.
reading: of a segment's M, max(int(M * context_ratio), 1) are contextual, as far as the anchor frames take them (half of
a frame's tokens each); what they cannot take is salient.
reading: anchor frames are the first carrying frame and every ``frame_step``-th after it; the later ones come first
where the contextual tokens do not divide evenly, the earlier frames where the salient ones do not.
reading: where the carrying frames are full, the segment's other frames keep tokens too, by attention, split evenly.
reading: a token's home is the contextual token of the segment that it is most alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from .deciding import Decisions, budget_of, largest, split
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, density_peaks, frames_of, identity, merging

NEIGHBOURS = 4


@dataclass(frozen=True)
class _Parts:
    """How many salient and contextual tokens each frame of a segment keeps."""

    salient: dict[int, int]
    contextual: dict[int, int]


def segments_of(links: list[float], segments: int, tau: float, decide: Decisions) -> list[list[int]]:
    """Frames, cut at the ``segments - 1`` lowest of the T - 1 similarities and at all below ``tau``."""
    cuts = set(decide.top([-value for value in links], min(segments, len(links) + 1) - 1))
    cuts |= {t for t, value in enumerate(links) if decide.above(tau, value)}
    result = [[0]]
    for t in range(len(links)):
        if t in cuts:
            result.append([])
        result[-1].append(t + 1)
    return result


def divide(budget: int, frames: list[int], places: int, carrying: list[int], ratio: float, step: int) -> _Parts:
    """A segment's budget over its frames."""
    anchors = carrying[::step][::-1]
    wanted = max(math.floor(Fraction(str(ratio)) * budget), 1) if budget else 0
    context = split([1] * len(anchors), [places // 2] * len(anchors), wanted)
    contextual = dict(zip(anchors, context, strict=True))
    room = [places - contextual.get(t, 0) for t in carrying]
    salient = split([1] * len(carrying), room, budget - sum(context))
    others = [t for t in frames if t not in carrying]
    extra = split([1] * len(others), [places] * len(others), budget - sum(context) - sum(salient))
    return _Parts(dict(zip([*carrying, *others], [*salient, *extra], strict=True)), contextual)


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    segments: int = 8,
    tau: float = 0.84,
    ignore: float = 0.95,
    context_ratio: float = 0.4,
    frame_step: int = 4,
    beta: float = 0.6,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """Attention is the signal ``encoder_pooled``; ``shares`` are the segments' budgets."""
    frames, height, width = grid
    places = height * width
    x = frames_of(features, grid)
    flat = x.reshape(len(features), -1)
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    attention = np.asarray(signals["encoder_pooled"], dtype=np.float64)
    scale = largest(attention)
    decide = Decisions()
    means = [frame.mean(axis=0) for frame in x]
    links = [cosine(means[t], means[t + 1]) for t in range(frames - 1)]
    parts = segments_of(links, segments, tau, decide)
    sizes = [len(part) * places for part in parts]
    shares = split(sizes, sizes, budget, at_least_one=True)

    home: list[int | None] = [None] * len(flat)
    mixing = {}  # anchor -> weights of all tokens
    for part, share in zip(parts, shares, strict=True):
        carrying = [t for t in part if t == part[-1] or decide.above(ignore, links[t])]
        counts = divide(share, part, places, carrying, context_ratio, frame_step)
        salient: list[int] = []
        for t, count in counts.salient.items():
            free = range(t * places, (t + 1) * places)
            salient += decide.top(attention, count, among=free, scale=scale)
        for token in salient:
            home[token] = token
            mixing[token] = np.eye(1, len(flat), token)[0]

        tokens = [t * places + p for t in part for p in range(places) if t * places + p not in salient]
        every: list[int] = []
        for t, count in counts.contextual.items():
            rest = [token for token in tokens if token // places == t]
            if count == 0:
                continue
            centres, _ = density_peaks([flat[token] for token in rest], count, NEIGHBOURS, decide)
            context = [rest[centre] for centre in centres]
            every += context
            taken: dict[int, list[int]] = {anchor: [] for anchor in context}
            for token in tokens:
                if token not in context:
                    taken[context[decide.best([cosine(flat[token], flat[anchor]) for anchor in context])]].append(token)
            for anchor, members in taken.items():
                own = max(1 / (len(members) + 1), beta) if members else 1.0
                mixing[anchor] = np.zeros(len(flat))
                mixing[anchor][anchor] = own
                mixing[anchor][members] = (1 - own) / max(1, len(members))
        every.sort()
        for token in tokens:
            if token in every:
                home[token] = token
            elif every:
                home[token] = every[decide.best([cosine(flat[token], flat[anchor]) for anchor in every])]

    plan = merging(home, features)
    table = np.stack([mixing[anchor] for anchor in plan.anchors])
    return replace(plan, merged=table @ flat, mixing=table, shares=shares, margin=decide.margin, tied=decide.tied)
