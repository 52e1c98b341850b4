# SPDX-License-Identifier: Apache-2.0
"""What a measurement ran on, without anything that tells whose machine it is."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tokenprune.distribution import installed_version

CPU_INFO = Path("/proc/cpuinfo")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Device, threads, memory and versions, JSON-ready; no names of hosts or users, no paths.

    ``memory_bytes`` and ``cores`` are the whole machine's, where it tells; ``capability`` and
    ``device_memory_bytes`` are there on a GPU only.
    """
    facts: dict[str, Any] = {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": _memory(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tokenprune": installed_version(),
        "transformers": _version("transformers"),
        "cuda": torch.version.cuda,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["capability"] = f"{properties.major}.{properties.minor}"
        facts["device_memory_bytes"] = properties.total_memory
    return facts


def cpu_name(info: Path = CPU_INFO) -> str:
    """The processor's model name, or the architecture where no name is told."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, named), "") or platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not every system has sysconf, or these names
        return None


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
