# SPDX-License-Identifier: Apache-2.0
"""The peak of what is resident: set back at the beginning, and not known where the system does not tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenprune.bench.speed.memory import PeakMemory

CPU = torch.device("cpu")
MIB = 2**20


def process(directory: Path, peak: int, resident: int) -> Path:
    (directory / "clear_refs").touch()
    (directory / "status").write_text(f"Name:\tx\nVmHWM:\t  {peak} kB\nVmRSS:\t  {resident} kB\n")
    return directory


def test_the_peak_is_that_of_the_block() -> None:
    with PeakMemory(CPU) as before:
        held = torch.ones(400 * MIB // 4)
    del held
    with PeakMemory(CPU) as after:
        pass
    if before.bytes is None or after.bytes is None:
        pytest.skip("this system does not set the peak back")
    assert before.bytes > 400 * MIB
    assert before.bytes - after.bytes > 300 * MIB


def test_bytes_of_the_counter(tmp_path: Path) -> None:
    with PeakMemory(CPU, process(tmp_path, 2000, 2000)) as peak:
        (tmp_path / "status").write_text("VmHWM:\t  3000 kB\nVmRSS:\t  2000 kB\n")
    assert peak.bytes == 3000 * 1024
    assert (tmp_path / "clear_refs").read_text() == "5"


def test_a_peak_that_is_not_set_back_is_not_known(tmp_path: Path) -> None:
    with PeakMemory(CPU, process(tmp_path, 90_000, 10_000)) as peak:
        pass
    assert peak.bytes is None


def test_no_such_file(tmp_path: Path) -> None:
    with PeakMemory(CPU, tmp_path / "nowhere") as peak:
        pass
    assert peak.bytes is None
    with PeakMemory(torch.device("mps"), process(tmp_path, 10, 10)) as other:
        pass
    assert other.bytes is None


def test_nothing_is_said_of_a_block_that_failed(tmp_path: Path) -> None:
    peak = PeakMemory(CPU, process(tmp_path, 10, 10))
    with pytest.raises(ZeroDivisionError), peak:
        raise ZeroDivisionError
    assert peak.bytes is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_on_a_gpu() -> None:
    device = torch.device("cuda")
    before = torch.cuda.memory_allocated(device)
    with PeakMemory(device) as peak:
        held = torch.ones(64 * MIB // 4, device=device)
        del held
    assert peak.bytes == before + 64 * MIB
