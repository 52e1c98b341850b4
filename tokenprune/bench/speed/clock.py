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

    An accelerator is idle when the call begins and again when its time ends; nothing is waited for inside.

    >>> timed(torch.device("cpu"), lambda: "done")[0]
    'done'
    """
    # As the timer of `torch.utils.benchmark` does it, whose import brings the toolchain for C++ along and speaks up on
    # stderr where there is a compiler and no GPU. Its `Timer` runs a statement three times where one is asked for, on
    # what the first was given; here each run has inputs of its own, and takes turns with all others.
    _settle(device)
    begin = time.perf_counter()
    result = call()
    _settle(device)
    return result, time.perf_counter() - begin


def processed(call: Callable[[], Result]) -> tuple[Result, float]:
    """Call once; returns what it returned, and the processor seconds it took: what else runs does not count.

    Those of several threads are added up, and an accelerator's are not among them.

    >>> processed(lambda: "done")[0]
    'done'
    """
    begin = time.process_time()
    result = call()
    return result, time.process_time() - begin


def _settle(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
