# SPDX-License-Identifier: Apache-2.0
"""What the micro-benchmark of the operators found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenprune.bench.speed.dispatched import Dispatched
from tokenprune.bench.speed.figures import Figure

FORMAT = "tokenprune.speed.operators"
VERSION = 1


@dataclass(frozen=True)
class SubjectCost:
    """What one operator costs on one clip.

    Args:
        name: the operator and what of it ran.
        seconds: of a run.
        dispatched: what it asked of torch.
        tokens_kept: of the clip's tokens; None for what does not decide that.
        share: seconds over those of the plain prefill of the same tokens, run by run; None where that was not measured.
    """

    name: str
    seconds: Figure
    dispatched: Dispatched
    tokens_kept: int | None
    share: Figure | None = None

    def to_dict(self, frames: int) -> dict[str, Any]:
        """JSON-ready; ``frames`` of the clip."""
        return {
            "name": self.name,
            "seconds": self.seconds.to_dict(),
            "seconds_per_frame": self.seconds.median / frames,
            "operations": self.dispatched.total,
            "host_waits": self.dispatched.total_waits,
            "waits": dict(self.dispatched.waits),
            "tokens_kept": self.tokens_kept,
            "share_of_prefill": None if self.share is None else self.share.to_dict(),
        }


@dataclass(frozen=True)
class CaseResult:
    """All subjects on one clip.

    Args:
        grid: ``(T, H, W)``.
        subjects: what was measured, in its order.
        ratios: what is compared -> figure of paired runs.
        same_tokens: whether STMerge and the direct implementation kept the same; None where one of them did not run.
        prefill_measured_at: frames of the clip whose prefill was measured: this one's, or a shorter one's, from which
            this one's is computed in proportion to the floating-point operations; None: no shares.
    """

    grid: tuple[int, int, int]
    subjects: Sequence[SubjectCost]
    ratios: Mapping[str, Figure]
    same_tokens: bool | None
    prefill_measured_at: int | None = None

    @property
    def tokens(self) -> int:
        """Visual tokens of the clip."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "grid": list(self.grid),
            "tokens": self.tokens,
            "subjects": [subject.to_dict(self.grid[0]) for subject in self.subjects],
            "ratios": {name: figure.to_dict() for name, figure in self.ratios.items()},
            "same_tokens": self.same_tokens,
            "prefill_measured_at": self.prefill_measured_at,
        }


@dataclass(frozen=True)
class Growth:
    """How the cost of a frame grows with the frames: 1 is linear.

    Args:
        frames: of the longer clip.
        over: frames of the shorter one.
        per_frame: seconds a frame of ``STMerge.plan`` on the longer clip over those on the shorter, run by run.
        per_frame_apart: the same with the time of the step over all pairs of frames taken off both.
    """

    frames: int
    over: int
    per_frame: Figure
    per_frame_apart: Figure

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "frames": self.frames,
            "over": self.over,
            "per_frame": self.per_frame.to_dict(),
            "per_frame_apart": self.per_frame_apart.to_dict(),
        }


@dataclass(frozen=True)
class OperatorsResult:
    """What was measured.

    Args:
        setting: the request, JSON-ready.
        machine: :func:`tokenprune.bench.speed.machine.describe_machine`.
        cases: one a clip, by rising frames.
        growth: the longest clip over each shorter one.
        unreachable: subject -> reason, of those that ran out of memory or take too long.
    """

    setting: Mapping[str, Any]
    machine: Mapping[str, Any]
    cases: Sequence[CaseResult]
    growth: Sequence[Growth]
    unreachable: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "setting": dict(self.setting),
            "machine": dict(self.machine),
            "cases": [case.to_dict() for case in self.cases],
            "growth": [growth.to_dict() for growth in self.growth],
            "unreachable": dict(self.unreachable),
        }
