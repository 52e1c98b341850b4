# SPDX-License-Identifier: Apache-2.0
"""What the hook ``tokenprune_speed`` returns; importing it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenprune.bench.speed.figures import Progress
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.bench.speed.result import SpeedResult
from tokenprune_qwen25vl.speed.shapes import SHAPES


@dataclass(frozen=True)
class QwenSpeed:
    """The :class:`tokenprune.bench.speed.request.SpeedBench` of Qwen2.5-VL."""

    @property
    def shapes(self) -> Sequence[str]:
        """Names of the shapes that can be built with random weights."""
        return tuple(SHAPES)

    def measure(self, request: SpeedRequest, progress: Progress | None = None) -> SpeedResult:
        """Measure; see :func:`tokenprune_qwen25vl.speed.measure.measure`."""
        from tokenprune_qwen25vl.speed.measure import measure

        return measure(request, progress)
