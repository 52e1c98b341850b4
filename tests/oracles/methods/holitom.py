# SPDX-License-Identifier: Apache-2.0
"""HoliTom's outer half, slow: windows of frames in which places stand still become one frame there; then a cut.

Windows maximise the number of tokens saved. Still places are averaged over the window and clustered; of the places that
move, each frame keeps those most attended.

reading: the budget is split by largest remainder over the blocks (a window's still places, the rest of each frame) by
their sizes, no block without while there is one each; it replaces the authors' rounding of each block.
reading: where merging alone would leave fewer tokens than the budget, the still places of the weakest link (the lowest
cosine between two frames of the window; ties to the earlier window, then the lower place) move again until it does not.
reading: a centre counts beta against the mean of the other members of its cluster; alone it stays as it is.
reading: clusters look at min(7, clusters) neighbours, but at least 2 (with one, the token itself, noise would decide).
reading: a still block without a budget is dropped, as are the tokens of a frame that are not kept.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of, largest, resolved, split
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, density_peaks, frames_of, identity, merging

NEIGHBOURS = 7
LONGEST_WINDOW = 1024

Window = tuple[int, int]  # frames [first, last], both inside


def still_places(still: np.ndarray, window: Window) -> list[int]:
    """The places that stay alike from each frame of the window to the next; ``still`` is (T - 1, N)."""
    first, last = window
    return [p for p in range(still.shape[1]) if last > first and all(still[first:last, p])]


def best_windows(still: np.ndarray, frames: int) -> list[Window]:
    """The split into windows that saves most tokens; ties prefer a single frame, then the shorter window."""
    best = [0] * (frames + 1)  # saved in the first i frames
    length = [1] * (frames + 1)  # of the window that ends there
    for i in range(1, frames + 1):
        best[i] = best[i - 1]
        for size in range(2, min(i, LONGEST_WINDOW) + 1):
            saved = best[i - size] + len(still_places(still, (i - size, i - 1))) * (size - 1)
            if saved > best[i]:
                best[i], length[i] = saved, size
    windows: list[Window] = []
    end = frames
    while end > 0:
        windows.append((end - length[end], end - 1))
        end -= length[end]
    return windows[::-1]


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    tau: float = 0.8,
    beta: float = 0.6,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """Attention is the signal ``encoder_column``; ``shares`` are of a window's still block, then of its frames."""
    frames, height, width = grid
    places = height * width
    x = frames_of(features, grid)
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    attention = np.asarray(signals["encoder_column"], dtype=np.float64)
    decide = Decisions()

    link = np.array([[cosine(x[t, p], x[t + 1, p]) for p in range(places)] for t in range(frames - 1)])
    link = link.reshape(frames - 1, places)
    still = np.array([[decide.above(value, tau) for value in row] for row in link], dtype=bool).reshape(link.shape)
    windows = best_windows(still, frames)
    static = [still_places(still, window) for window in windows]
    weakest = sorted(
        (resolved(float(min(link[first:last, p])), 1.0), w, p)
        for w, (first, last) in enumerate(windows)
        for p in static[w]
    )
    left = len(features) - sum(len(static[w]) * (last - first) for w, (first, last) in enumerate(windows))
    for place, (value, w, p) in enumerate(weakest):
        if left >= budget:
            if place:
                decide.note(value - weakest[place - 1][0])
            break
        static[w].remove(p)
        left += windows[w][1] - windows[w][0]

    sizes: list[int] = []
    for w, (first, last) in enumerate(windows):
        sizes += [len(static[w]), *[places - len(static[w])] * (last - first + 1)]
    shares = split(sizes, sizes, budget, at_least_one=True)

    home: list[int | None] = [None] * len(features)
    weights = np.ones(len(features))
    block = iter(shares)
    for w, (first, last) in enumerate(windows):
        clusters = next(block)
        if clusters:
            means = [x[first : last + 1, p].mean(axis=0) for p in static[w]]
            centres, nearest = density_peaks(means, clusters, max(2, min(NEIGHBOURS, clusters)), decide)
            for i, p in enumerate(static[w]):
                centre = nearest[i]
                others = nearest.count(centre) - 1
                for t in range(first, last + 1):
                    home[t * places + p] = first * places + static[w][centre]
                    if others:
                        weights[t * places + p] = beta if i in centres else (1 - beta) / others
        for t in range(first, last + 1):
            moving = [t * places + p for p in range(places) if p not in static[w]]
            for token in decide.top(attention, next(block), among=moving, scale=largest(attention)):
                home[token] = token

    plan = merging(home, features)
    flat = x.reshape(len(features), -1)
    for place in range(len(plan.anchors)):
        members = [i for i, own in enumerate(plan.assign) if own == place]
        plan.merged[place] = np.average(flat[members], axis=0, weights=weights[members])
    return replace(plan, shares=shares, margin=decide.margin, tied=decide.tied)
