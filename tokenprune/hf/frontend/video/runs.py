# SPDX-License-Identifier: Apache-2.0
"""Which packets must be decoded for which frames."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tokenprune.hf.frontend.video.timeline import Timeline


@dataclass(frozen=True)
class Run:
    """Packets ``first..last``, decoded in one go for the presented frames `wanted`, in order."""

    first: int
    last: int
    wanted: tuple[int, ...]


def plan_runs(timeline: Timeline, wanted: Sequence[int]) -> list[Run]:
    """From a key frame before each wanted frame to the frame itself; what overlaps is one run.

    Args:
        timeline: of the file.
        wanted: presented frames, increasing.
    """
    if not timeline.timed:  # frames are known by counting them, so none may be left out
        return [Run(0, max(timeline.order[frame] for frame in wanted), tuple(wanted))]
    keys = [place for place, packet in enumerate(timeline.packets) if packet.key]
    runs: list[Run] = []
    for frame in wanted:
        place = timeline.order[frame]
        first = _key_before(timeline, keys, place)
        if runs and first <= runs[-1].last + 1:
            before = runs.pop()
            runs.append(Run(min(first, before.first), max(place, before.last), (*before.wanted, frame)))
        else:
            runs.append(Run(first, place, (frame,)))
    return runs


def _key_before(timeline: Timeline, keys: list[int], place: int) -> int:
    """The last key frame before a packet in both orders: what follows one but is shown before it needs an earlier."""
    time = timeline.packets[place].time or 0
    for key in reversed(keys[: bisect_right(keys, place)]):
        if (timeline.packets[key].time or 0) <= time:
            return key
    return 0
