# SPDX-License-Identifier: Apache-2.0
"""Where a run stands, on disk: weights and optimizer as safetensors, the rest as JSON, each written whole."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import nn

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor


@dataclass
class Progress:
    """How far a run has come."""

    stage: int = 0
    step: int = 0
    """Steps done in the stage."""
    running: dict[str, float] = field(default_factory=dict)
    """Running accuracy of each kind of question on training clips."""


def save(
    folder: Path, parts: dict[str, nn.Module], optimizer: torch.optim.Optimizer | None, progress: Progress
) -> None:
    """Saves a run in `folder/state`, replacing what was there only once all is written."""
    fresh, state = folder / "state.new", folder / "state"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, module in parts.items():
        save_file(
            {k: v.detach().contiguous().clone() for k, v in module.state_dict().items()}, fresh / f"{name}.safetensors"
        )
    if optimizer is not None:
        tensors = {}
        for index, values in optimizer.state_dict()["state"].items():
            tensors.update({f"{index}.{key}": value.clone() for key, value in values.items()})
        save_file(tensors, fresh / "optimizer.safetensors")
    (fresh / "progress.json").write_text(json.dumps(progress.__dict__, indent=1))
    shutil.rmtree(folder / "state.old", ignore_errors=True)
    if state.exists():
        os.replace(state, folder / "state.old")
    os.replace(fresh, state)
    shutil.rmtree(folder / "state.old", ignore_errors=True)


def load_progress(folder: Path) -> Progress | None:
    """The progress of the run in `folder`, or None where there is none."""
    path = folder / "state" / "progress.json"
    return Progress(**json.loads(path.read_text())) if path.exists() else None


def load_parts(folder: Path, parts: dict[str, nn.Module]) -> None:
    """Loads the modules that `save` wrote."""
    for name, module in parts.items():
        module.load_state_dict(load_file(folder / "state" / f"{name}.safetensors"))


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Loads the optimizer that `save` wrote, for the same parameters in the same order."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / "state" / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)


def export(folder: Path, model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor) -> None:
    """Writes what `from_pretrained` and `AutoProcessor` load, replacing what was there file by file."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    processor.save_pretrained(fresh)
    folder.mkdir(parents=True, exist_ok=True)
    for path in fresh.iterdir():
        path.chmod(0o644)
        os.replace(path, folder / path.name)
    fresh.rmdir()
