# SPDX-License-Identifier: Apache-2.0
"""The first run of every subject: what it asks of torch, what it keeps, and whether it is too slow to be repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tokenprune.bench.speed.dispatched import Dispatched, count_dispatched
from tokenprune.bench.speed.figures import Progress, Sample, interleave
from tokenprune.bench.speed.operators_request import OperatorsRequest
from tokenprune.bench.speed.operators_subjects import DIRECT, PLAN
from tokenprune.bench.speed.subject import Subject

Key = tuple[int, str]
"""Frames of the clip and name of the subject."""


def label(key: Key) -> str:
    """How a subject on a clip is named.

    >>> label((4, "STMerge: plan"))
    '4 frames: STMerge: plan'
    """
    return f"{key[0]} frames: {key[1]}"


class Counted:
    """The first run of every subject, in which operations and kept tokens are counted; what is slow is found out."""

    def __init__(self, subjects: Mapping[Key, Subject], request: OperatorsRequest) -> None:
        self._subjects = subjects
        self._request = request
        self._seconds: dict[Key, float] = {}
        self.slow: dict[str, str] = {}
        self.dispatched: dict[Key, Dispatched] = {}
        self.kept: dict[Key, int | None] = {}
        self._anchors: dict[Key, Tensor] = {}

    def run(self, progress: Progress | None) -> Mapping[str, str]:
        """Count; returns the subjects that ran out of memory, with the reason."""
        runs = {label(key): self._counting(key) for key in self._subjects}
        return interleave(runs, rounds=1, warmup=0, progress=progress).failed

    def same_tokens(self, frames: int) -> bool | None:
        """Whether STMerge and the direct implementation kept the same tokens; None if one of them did not run."""
        mine, its = self._anchors.get((frames, PLAN)), self._anchors.get((frames, DIRECT))
        return None if mine is None or its is None else torch.equal(mine, its)

    def _counting(self, key: Key) -> Callable[[], Sample]:
        def run() -> Sample:
            subject, device = self._subjects[key], self._request.device
            least = self._least_seconds(key)
            if least > self._request.limit:
                self.slow[label(key)] = f"would take {least:.0f} s at least, by the shorter clip"
                return {}
            call = subject.ready()
            (result, self.dispatched[key]), seconds = self._request.timed(lambda: count_dispatched(call, device))
            self._seconds[key] = seconds
            if seconds > self._request.limit:
                self.slow[label(key)] = f"its first run took {seconds:.0f} s"
            self.kept[key] = len(result) if subject.keeps else None
            if key[1] in (PLAN, DIRECT):
                self._anchors[key] = result
            return {}

        return run

    def _least_seconds(self, key: Key) -> float:
        """What it takes if its time grows with the frames and no faster; 0 where it ran on no shorter clip.

        A first run pays for what is made once, imports among it, so before it says no the shorter clip is run again.
        """
        frames, name = key
        shorter = [each for each, ran in self._seconds if ran == name and each < frames]
        if not shorter:
            return 0.0
        before, growth, limit = (max(shorter), name), frames / max(shorter), self._request.limit
        if growth * self._seconds[before] > limit >= self._seconds[before]:
            _, again = self._request.timed(self._subjects[before].ready())
            self._seconds[before] = min(self._seconds[before], again)
        return growth * self._seconds[before]
