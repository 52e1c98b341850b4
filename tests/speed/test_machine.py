# SPDX-License-Identifier: Apache-2.0
"""The description of a machine: enough to repeat a measurement, nothing of whose it is."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import torch

from tokenprune.bench.speed.machine import cpu_name, describe_machine


def test_what_a_result_says_of_its_machine() -> None:
    facts = describe_machine(torch.device("cpu"))
    assert facts["device"] == "cpu"
    assert facts["threads"] == torch.get_num_threads()
    assert facts["torch"] == torch.__version__
    assert facts["python"] == platform.python_version()
    assert facts["memory_bytes"] is None or facts["memory_bytes"] > 2**20
    assert all(facts[key] for key in ("device_name", "cores", "tokenprune"))
    told = json.dumps(facts)
    for private in (platform.node(), str(Path.home()), str(Path.cwd())):
        assert len(private) < 3 or private not in told


def test_the_name_of_the_cpu(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: Other\n")
    assert cpu_name(info) == "Some CPU @ 2 GHz"
    info.write_text("processor\t: 0\nmodel name\t:\n")
    assert cpu_name(info)
    assert cpu_name(tmp_path / "absent")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_tells_its_size() -> None:
    facts = describe_machine(torch.device("cuda"))
    assert facts["device_memory_bytes"] > 2**30
    assert "." in facts["capability"]
