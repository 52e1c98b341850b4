# SPDX-License-Identifier: Apache-2.0
"""What the command line asks of an adapter when speed and memory are to be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tokenprune.bench.speed.figures import Progress
from tokenprune.bench.speed.result import SpeedResult
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.pipeline import Pipeline


@dataclass(frozen=True)
class SpeedRequest:
    """What is to be measured.

    >>> SpeedRequest({"default": tp.preset("default")}, shape="qwen2.5-vl-7b", rounds=3).batch
    1

    Args:
        pipelines: name -> pipeline; each is measured beside the plain model.
        shape: name of a model shape, which is given random weights; None: a checkpoint.
        model: path or id of a checkpoint; None, and no shape: the small one that ships with the adapter.
        grid: visual tokens of the clip, ``(T, H, W)``.
        text: text tokens after the clip, the chat template's among them; at least 1.
        batch: copies of the prompt, each with a clip of its own; at least 1.
        new_tokens: tokens that are decoded after the first; at least 1.
        static: fraction of the positions that stay the same within a scene, in [0, 1] (random weights only: a
            trained model is shown a clip and makes its own features).
        rounds: counted runs of everything, at least 1.
        warmup: runs before them that are not counted.
        eager_baseline: whether eager attention, with weights put out and masking, is measured too.
        profile: directory for one trace of each subject, from a run that is not counted; None: no traces.
        device: None is the adapter's choice, as for the next two.
        dtype: name of a dtype.
        attn: attention implementation.

    Raises:
        InvalidValueError: a value is out of range, or both a shape and a model are named.
    """

    pipelines: Mapping[str, Pipeline]
    shape: str | None = None
    model: str | None = None
    grid: tuple[int, int, int] = (16, 12, 12)
    text: int = 32
    batch: int = 1
    new_tokens: int = 16
    static: float = 0.5
    rounds: int = 5
    warmup: int = 1
    eager_baseline: bool = True
    profile: Path | None = None
    device: str | None = None
    dtype: str | None = None
    attn: str | None = None

    def __post_init__(self) -> None:
        if self.shape is not None and self.model is not None:
            raise InvalidValueError(
                f"name a shape or a model, not both, got {shown(self.shape)} and {shown(self.model)}"
            )
        if min(self.grid) < 1:
            raise InvalidValueError(f"grid must be (T, H, W) of at least 1, got {shown(self.grid)}")
        least = {"text": 1, "batch": 1, "new_tokens": 1, "rounds": 1, "warmup": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InvalidValueError(f"{name} must be at least {smallest}, got {shown(getattr(self, name))}")
        if not 0 <= self.static <= 1:
            raise InvalidValueError(f"static must be a fraction in [0, 1], got {shown(self.static)}")


class SpeedBench(Protocol):
    """What the hook ``tokenprune_speed`` returns: an adapter's way to measure its models."""

    @property
    def shapes(self) -> Sequence[str]:
        """Names of the model shapes that can be built with random weights."""
        ...

    def measure(self, request: SpeedRequest, progress: Progress | None = None) -> SpeedResult:
        """Measure the plain model, each pipeline, and their references, in turn.

        Raises:
            InvalidValueError: an unknown shape, or a prompt that the model cannot be given.
        """
        ...
