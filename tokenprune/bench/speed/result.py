# SPDX-License-Identifier: Apache-2.0
"""What a measurement of speed and memory found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tokenprune.bench.speed.figures import Figure

FORMAT = "tokenprune.speed"
VERSION = 2
"""Version 1 called the lower bound ``ideal`` and the eager baseline ``usual``; nothing else is different."""

Role = Literal["plain", "pipeline", "lower bound", "eager baseline"]
"""The model without tokenprune; a pipeline; the plain layers at a pipeline's lengths, without any operator; eager
attention whose weights are put out, then masking."""


@dataclass(frozen=True)
class OperatorCost:
    """What one operator of a pipeline took and left.

    Args:
        operator: its class.
        site: ``"before_llm"`` or ``"after_layer"``.
        layer: after which decoder layer, or None.
        seconds: from its begin to its end, applying its plan included.
        visual_before: visual tokens of each row before it.
        visual_after: and after it.
    """

    operator: str
    site: str
    layer: int | None
    seconds: Figure
    visual_before: Sequence[int]
    visual_after: Sequence[int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "operator": self.operator,
            "site": self.site,
            "layer": self.layer,
            "seconds": self.seconds.to_dict(),
            "visual_before": list(self.visual_before),
            "visual_after": list(self.visual_after),
        }


@dataclass(frozen=True)
class Speedup:
    """How many times faster than the plain model, and the most that an infinitely fast LLM prefill would give."""

    factor: Figure
    ceiling: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**self.factor.to_dict(), "ceiling": self.ceiling}


@dataclass(frozen=True)
class SpeedRow:
    """One subject.

    Args:
        name: unique in its result: ``plain``, a pipeline's name, ``lower bound: NAME``, ``eager baseline: NAME``.
        role: what it is.
        figures: quantity -> figure. ``llm_prefill_seconds`` (the decoder's forward over the prompt, operators
            included) is there for every role; ``time_to_first_token_seconds`` (vision encoder, then everything up to
            the first token), ``answer_seconds`` and ``decode_tokens_per_second`` where an answer was generated.
        peak_memory_bytes: the most that was allocated (GPU) or resident (CPU) in a run, weights included; None where
            this machine does not tell.
        layer_tokens: per decoder layer the tokens it computed, per row.
        prefill_flops: by formula, of the decoder layers over the prompt.
        kv_bytes: measured in the cache after the prefill; None where no cache was cut or kept.
        kv_bytes_by_formula: rows x longest kept row x layers x 2 x kv heads x head dim x item size; a layer of linear
            attention holds a state of constant size instead.
        operators: of a pipeline.
        ratios: what is compared -> figure of paired runs, such as ``llm_prefill / lower bound``.
        speedups: ``time_to_first_token`` and ``answer`` against the plain model.
        pipeline: description of the pipeline.
    """

    name: str
    role: Role
    figures: Mapping[str, Figure]
    peak_memory_bytes: int | None
    layer_tokens: Sequence[Sequence[int]]
    prefill_flops: int
    kv_bytes: int | None
    kv_bytes_by_formula: int
    operators: Sequence[OperatorCost] = ()
    ratios: Mapping[str, Figure] = field(default_factory=dict[str, Figure])
    speedups: Mapping[str, Speedup] = field(default_factory=dict[str, Speedup])
    pipeline: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "role": self.role,
            "figures": {name: figure.to_dict() for name, figure in self.figures.items()},
            "peak_memory_bytes": self.peak_memory_bytes,
            "layer_tokens": [list(row) for row in self.layer_tokens],
            "prefill_flops": self.prefill_flops,
            "kv_bytes": self.kv_bytes,
            "kv_bytes_by_formula": self.kv_bytes_by_formula,
            "operators": [operator.to_dict() for operator in self.operators],
            "ratios": {name: figure.to_dict() for name, figure in self.ratios.items()},
            "speedups": {name: speedup.to_dict() for name, speedup in self.speedups.items()},
            "pipeline": self.pipeline,
        }


@dataclass(frozen=True)
class SpeedResult:
    """What was measured.

    Args:
        setting: model, prompt and options, JSON-ready; no path of this machine.
        machine: :func:`tokenprune.bench.speed.machine.describe_machine`.
        vision: quantity -> figure of the vision encoder, the same for all rows: ``seconds``, and
            ``peak_memory_bytes`` where the machine tells.
        rows: the plain model first.
        unreachable: subjects without figures, with the reason (out of memory).
    """

    setting: Mapping[str, Any]
    machine: Mapping[str, Any]
    vision: Mapping[str, Figure]
    rows: Sequence[SpeedRow]
    unreachable: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "setting": dict(self.setting),
            "machine": dict(self.machine),
            "vision": {name: figure.to_dict() for name, figure in self.vision.items()},
            "rows": [row.to_dict() for row in self.rows],
            "unreachable": dict(self.unreachable),
        }
