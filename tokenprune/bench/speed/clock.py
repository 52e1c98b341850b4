# SPDX-License-Identifier: Apache-2.0
"""The time of one call on one device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def timed(device: torch.device, call: Callable[[], Result]) -> tuple[Result, float]:
    """Call once; returns what it returned, and its seconds.

    A GPU is idle when the call begins, and events in its stream tell when it began and when its last kernel ended, so
    a call that is slow to launch its kernels is slow; nothing is waited for inside. Elsewhere the clock on the wall.
    """
    if device.type != "cuda":
        begin = time.perf_counter()
        result = call()
        return result, time.perf_counter() - begin
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        result = call()
        end.record()
        end.synchronize()
        return result, start.elapsed_time(end) / 1000.0
