# SPDX-License-Identifier: Apache-2.0
"""What the hook ``tokenprune_speed`` returns; importing it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenprune.bench.model_speed.shapes import SHAPES
from tokenprune.bench.speed.figures import Progress
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.bench.speed.result import SpeedResult

if TYPE_CHECKING:
    from tokenprune.hf.frontend.family import Family


@dataclass(frozen=True)
class ModelSpeed:
    """The :class:`tokenprune.bench.speed.request.SpeedBench` of a family.

    >>> from tokenprune_qwen25vl.family import QWEN25VL
    >>> "qwen2.5-vl-7b" in ModelSpeed(QWEN25VL).shapes
    True
    """

    family: Family

    @property
    def shapes(self) -> Sequence[str]:
        """Names of the shapes that can be built with random weights."""
        return tuple(SHAPES)

    def measure(self, request: SpeedRequest, progress: Progress | None = None) -> SpeedResult:
        """Measure; see :func:`tokenprune.bench.model_speed.measure.measure`."""
        from tokenprune.bench.model_speed.measure import measure

        return measure(self.family, request, progress)
