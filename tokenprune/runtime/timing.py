# SPDX-License-Identifier: Apache-2.0
"""Timing a stage without waiting for the device: CUDA events, read when the report is read."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timestamp:
    """A point in the work given to a device."""

    clock: float
    event: torch.cuda.Event | None

    @classmethod
    def now(cls, device: torch.device) -> Timestamp:
        """This moment: an event in the device's stream on CUDA, the wall clock elsewhere."""
        event = None
        if device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(device))
        return cls(time.perf_counter(), event)

    def until(self, end: Timestamp) -> float:
        """Seconds from here to ``end`` (this waits for the device)."""
        if self.event is None or end.event is None:
            return end.clock - self.clock
        end.event.synchronize()
        return self.event.elapsed_time(end.event) / 1000.0
