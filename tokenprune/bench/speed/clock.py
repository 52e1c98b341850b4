# SPDX-License-Identifier: Apache-2.0
"""The time of one call on one device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import torch

Result = TypeVar("Result")


def timed(device: torch.device, call: Callable[[], Result]) -> tuple[Result, float]:
    """Call once; returns what it returned, and its seconds, by torch's own timer.

    An accelerator is idle when the call begins and again when its time ends; nothing is waited for inside.

    >>> timed(torch.device("cpu"), lambda: "done")[0]
    'done'
    """
    # Only the timer of `torch.utils.benchmark`: its `Timer` runs a statement three times where one is asked for, and
    # again on what the first run was given. Here each run has inputs of its own, and takes turns with all others.
    from torch.utils.benchmark import timer

    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        begin = timer()
        result = call()
        return result, timer() - begin
