# SPDX-License-Identifier: Apache-2.0
"""One trace of each subject, for a viewer of Chrome traces."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from tokenprune.bench.speed.figures import Sample, interleave


def write_traces(subjects: Mapping[str, Callable[[], Sample]], directory: Path, device: torch.device) -> dict[str, str]:
    """Run each subject once more under torch's profiler and write ``directory/NAME.json``.

    Args:
        subjects: name -> one run.
        directory: made where it is missing.
        device: where they run.

    Returns:
        What ran out of memory while it was profiled, with the message.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = _file_names(list(subjects))
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)

    def profiled(name: str, run: Callable[[], Sample]) -> Sample:
        with profile(activities=activities) as recorded:
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        unfinished = directory / f".{files[name]}.tmp"
        recorded.export_chrome_trace(str(unfinished))
        os.replace(unfinished, directory / files[name])
        return {}

    runs = {name: lambda name=name, run=run: profiled(name, run) for name, run in subjects.items()}
    return dict(interleave(runs, rounds=1, warmup=0).failed)


def _file_names(names: list[str]) -> dict[str, str]:
    """Name -> a file name that every system takes, no two alike."""
    found: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "subject"
        candidate, count = f"{stem}.json", 1
        while candidate.lower() in {taken.lower() for taken in found.values()}:
            count += 1
            candidate = f"{stem}-{count}.json"
        found[name] = candidate
    return found
