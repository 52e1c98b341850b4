# SPDX-License-Identifier: Apache-2.0
"""InfiniPot-V, slow: of each key-value head half by how unlike recent frames its keys are, half by length of value.

The first half (temporal redundancy) keeps recent frames whole and, of the others, the tokens whose keys have the lowest
mean cosine to the keys at the same place of the recent frames. The second half (value norm) fills up with the tokens
of longest values that the first has not taken. Layer-wise pooling of the second half is no part of it.

reading: the budget is split by largest remainder, an odd token is the first half's.
reading: recent frames are floor(query_ratio * T), at least one; one frame alone has no others to be compared with, so
that values decide everything.
reading: where the first half cannot hold all recent frames (the authors' code fails), as many of the latest stay whole
as it holds; the tokens of the other recent frames are ranked like all others.
reading: of a video that was cut before, a frame is the tokens that are left of it; a token whose place is gone from all
recent frames is at a cosine of 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from .deciding import Decisions, budget_of, largest, split
from .heads import ReferenceHeads
from .plain import Grid, cosine


def recent_frames(frames: int, query_ratio: float) -> list[int]:
    """The frames that all others are compared with."""
    count = max(1, math.floor(Fraction(str(query_ratio)) * frames))
    return list(range(frames - count, frames))


def likeness(keys: np.ndarray, grid: Grid, recent: Sequence[int], ids: Sequence[int]) -> list[float]:
    """For each token the mean cosine of its key to the keys at its place in the recent frames."""
    places = grid[1] * grid[2]
    where = {token: i for i, token in enumerate(ids)}
    result: list[float] = []
    for i, token in enumerate(ids):
        same = [where[t * places + token % places] for t in recent if t * places + token % places in where]
        result.append(sum(cosine(keys[i], keys[j]) for j in same) / len(same) if same else 0.0)
    return result


def reference(
    keys: np.ndarray,
    values: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    tar_ratio: float = 0.5,
    query_ratio: float = 0.25,
    ids: Sequence[int] | None = None,
) -> ReferenceHeads:
    """``keys`` (rotated) and ``values`` are ``(kv_heads, N, d)``; ``ids``: the raster index of each token, all if None.

    ``forced`` are the tokens of the first half.
    """
    heads, n, _ = keys.shape
    tokens = list(range(n)) if ids is None else list(ids)
    places = grid[1] * grid[2]
    budget = budget_of(n, keep_ratio, keep)
    share = Fraction(str(tar_ratio))
    half = split([share, 1 - share], [budget, budget], budget)[0] if grid[0] > 1 else 0
    recent = recent_frames(grid[0], query_ratio)
    whole: list[int] = []
    for t in reversed(recent):
        frame = [i for i, token in enumerate(tokens) if token // places == t]
        if len(whole) + len(frame) > half:
            break
        whole += frame

    decide = Decisions()
    kept: list[list[int]] = []
    forced: list[list[int]] = []
    for head in range(heads):
        alike = likeness(keys[head].astype(np.float64), grid, recent, tokens)
        others = [i for i in range(n) if i not in whole]
        first = [*whole, *decide.top([-value for value in alike], half - len(whole), among=others)]
        long = [math.sqrt(sum(float(x) ** 2 for x in value)) for value in values[head]]
        rest = [i for i in range(n) if i not in first]
        forced.append(sorted(first))
        kept.append(sorted([*first, *decide.top(long, budget - half, among=rest, scale=largest(long))]))
    return ReferenceHeads(kept, forced=forced, margin=decide.margin, tied=decide.tied)
