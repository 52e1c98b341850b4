# SPDX-License-Identifier: Apache-2.0
"""What the micro-benchmark of the operators is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from tokenprune.bench.speed.clock import Result, processed, timed
from tokenprune.bench.speed.scoring import AttentionShape
from tokenprune.errors import InvalidValueError
from tokenprune.messages import not_one_of, shown

CLOCKS = ("wall", "processor")


@dataclass(frozen=True)
class OperatorsRequest:
    """Clips to measure on, and how often. The defaults are the sizes of Qwen2.5-VL-7B.

    Args:
        frames: token frames of the clips; each at least 1, no two alike; kept in rising order.
        rows: token rows of a frame.
        columns: token columns of a frame.
        width: components of a visual token.
        static: fraction of the positions that stay the same within a scene, in [0, 1].
        rounds: counted runs of every subject, at least 1.
        warmup: runs before them that are not counted; one more counts operations.
        direct_up_to: most frames at which the direct implementation is measured; None: all, 0: none.
        device: where.
        dtype: of the visual tokens; queries and keys are bf16.
        attention: the layer that is read.
        intermediate: width of the decoder's feed-forward network.
        layers: decoder layers of the prefill that times are compared with; 0: they are not.
        limit: seconds; an operator whose first run on a clip takes longer, or on a shorter clip took longer for its
            share of the frames, is left out there.
        clock: ``"wall"``, or ``"processor"`` of this process alone, so that what else runs does not count; the latter
            on a CPU with one thread.

    Raises:
        InvalidValueError: a value is out of range, or a device other than a CPU or a GPU.
    """

    frames: tuple[int, ...] = (4, 16, 48, 192)
    rows: int = 16
    columns: int = 18
    width: int = 3584
    static: float = 0.5
    rounds: int = 5
    warmup: int = 1
    direct_up_to: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    attention: AttentionShape = field(default_factory=AttentionShape)
    intermediate: int = 18944
    layers: int = 28
    limit: float = 60.0
    clock: str = "wall"

    def __post_init__(self) -> None:
        if not self.frames or min(self.frames) < 1 or len(set(self.frames)) < len(self.frames):
            raise InvalidValueError(f"frames must be different integers of at least 1, got {shown(self.frames)}")
        object.__setattr__(self, "frames", tuple(sorted(self.frames)))
        least = {"rows": 1, "columns": 1, "width": 1, "rounds": 1, "warmup": 0, "intermediate": 1, "layers": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InvalidValueError(f"{name} must be at least {smallest}, got {shown(getattr(self, name))}")
        if self.direct_up_to is not None and self.direct_up_to < 0:
            raise InvalidValueError(f"direct_up_to must be at least 0, got {shown(self.direct_up_to)}")
        if not 0 <= self.static <= 1:
            raise InvalidValueError(f"static must be a fraction in [0, 1], got {shown(self.static)}")
        if not self.limit > 0:
            raise InvalidValueError(f"limit must be a number of seconds above 0, got {shown(self.limit)}")
        if self.device.type not in ("cpu", "cuda"):
            raise InvalidValueError(f"device must be cpu or cuda, got {self.device}")
        if self.clock not in CLOCKS:
            raise InvalidValueError(not_one_of("clock", CLOCKS, self.clock))
        if self.clock == "processor" and (self.device.type != "cpu" or torch.get_num_threads() > 1):
            raise InvalidValueError(
                f"processor time is that of a CPU with one thread (OMP_NUM_THREADS=1), got {self.device.type} with "
                f"{torch.get_num_threads()}"
            )

    def timed(self, call: Callable[[], Result]) -> tuple[Result, float]:
        """Call once; returns what it returned, and its seconds by this clock."""
        return processed(call) if self.clock == "processor" else timed(self.device, call)

    @property
    def length(self) -> int:
        """Tokens of a frame."""
        return self.rows * self.columns

    def measures_direct(self, frames: int) -> bool:
        """Whether the direct implementation is measured on a clip of so many frames."""
        return self.direct_up_to is None or frames <= self.direct_up_to
