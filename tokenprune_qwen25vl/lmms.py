# SPDX-License-Identifier: Apache-2.0
# pyright: reportMissingImports=false, reportUntypedBaseClass=false
"""Qwen2.5-VL for lmms-eval, with its visual tokens pruned; lmms-eval is not ours and only needed here.

``--model tokenprune_qwen25vl --model_args pretrained=...,pipeline=default`` under ``accelerate launch`` runs one model
a GPU; each prunes its own prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.models.chat.qwen2_5_vl import Qwen2_5_VL
from loguru import logger as eval_logger

from tokenprune import Pipeline, attach, preset

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

    from tokenprune.runtime.report import Report


class PrunedQwen25VL(Qwen2_5_VL):
    """lmms-eval's own Qwen2.5-VL (chat), whose every ``generate`` runs in a session of its own.

    Args:
        pipeline: name of a preset, or path of a pipeline file ending in ``.json`` (lmms-eval splits its arguments at
            commas, so a pipeline cannot be written out there).
        options: what lmms-eval's class takes: ``pretrained``, ``device``, ``max_num_frames``, ...

    Raises:
        InvalidValueError: no such preset, or a layer beyond the model's depth.
        PipelineFileError: the file cannot be read as a pipeline.
    """

    is_simple = False

    def __init__(self, pipeline: str = "default", **options: Any) -> None:
        self.pipeline = Pipeline.load(Path(pipeline)) if pipeline.endswith(".json") else preset(pipeline)
        self._pruned: PrunedGeneration | None = None
        super().__init__(**options)
        self.pipeline.layers(self.model.config.get_text_config().num_hidden_layers)

    @property
    def model(self) -> Any:
        """The model; while requests are answered, the pruned one."""
        return self._pruned if self._pruned is not None else super().model

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer requests and log what pruning left of their prompts."""
        pruned = self._pruned = PrunedGeneration(super().model, self.pipeline)
        try:
            answers: list[str] = super().generate_until(requests)
        finally:
            self._pruned = None
        eval_logger.info(f"tokenprune, rank {self.rank}: {pruned.spent}")
        return answers


@dataclass
class Spent:
    """Sums over prompts with visual tokens."""

    prompts: int = 0
    retained: float = 0.0
    layer_averaged: float = 0.0

    def add(self, report: Report) -> None:
        """Count a prefill."""
        self.prompts += len(report.visual_retained)
        self.retained += sum(report.visual_retained)
        self.layer_averaged += sum(report.layer_averaged_retained)

    def __str__(self) -> str:
        if not self.prompts:
            return "no prompt with visual tokens"
        kept, seen = self.retained / self.prompts, self.layer_averaged / self.prompts
        return f"{self.prompts} prompts, {kept:.1%} of the visual tokens kept, {seen:.1%} seen (mean over layers)"


@dataclass
class PrunedGeneration:
    """What lmms-eval takes for its model while it answers: only ``generate`` is asked of it."""

    module: Qwen2_5_VLForConditionalGeneration
    pipeline: Pipeline
    spent: Spent = field(default_factory=Spent)

    def generate(self, **inputs: Any) -> Any:
        """The model's own, pruned; a session a call, so that no report outlives its batch."""
        runnable: Any = self.module
        with attach(self.module, self.pipeline) as session:
            output = runnable.generate(**inputs)
        if session.report is not None:
            self.spent.add(session.report)
        return output
