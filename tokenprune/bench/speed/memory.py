# SPDX-License-Identifier: Apache-2.0
"""The most memory that was held while something ran."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType

import torch

PROCESS = Path("/proc/self")

_FORGET_PEAK = "5"
"""What Linux takes in ``clear_refs`` to set the resident peak back to what is resident now."""
_SLACK = 16 * 2**20
"""Bytes by which a peak just set back may differ from what is resident: the system counts both only roughly."""


class PeakMemory:
    """``with PeakMemory(device) as peak: ...``, then ``peak.bytes``.

    On a GPU what torch had allocated at most. On a CPU what of the process was resident at most (Linux only): weights,
    inputs and the interpreter too, and what the allocator has kept of earlier work. None where the machine does not
    tell. One at a time: beginning another forgets the peak of the first.

    Args:
        device: where the work runs.
        process: the process's directory in ``/proc``.
    """

    def __init__(self, device: torch.device, process: Path = PROCESS) -> None:
        self.bytes: int | None = None
        self._device = device
        self._process = process
        self._is_known = False

    def __enter__(self) -> PeakMemory:
        self.bytes = None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._is_known = True
        else:
            self._is_known = self._device.type == "cpu" and _forget_peak(self._process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or not self._is_known:
            return
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        else:
            self.bytes = _status(self._process, "VmHWM")


def _forget_peak(process: Path) -> bool:
    """Set the resident peak back; False where that does not work, which some sandboxes do not say."""
    try:
        (process / "clear_refs").write_text(_FORGET_PEAK, encoding="ascii")
    except OSError:
        return False
    peak, now = _status(process, "VmHWM"), _status(process, "VmRSS")
    return peak is not None and now is not None and peak <= now + _SLACK


def _status(process: Path, name: str) -> int | None:
    """One of the process's counters in bytes."""
    try:
        text = (process / "status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024
