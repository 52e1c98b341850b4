# SPDX-License-Identifier: Apache-2.0
"""What the facade gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tokenprune.answers import Answer
from tokenprune.runtime.report import Report


@dataclass(frozen=True, eq=False)
class PruneVidOutput:
    """An answer; fields can be read as attributes or as keys.

    >>> from tokenprune_qwen25vl import Qwen25VLPruneVid, demo_clip
    >>> pruned = Qwen25VLPruneVid(model=model, processor=processor)
    >>> result = pruned.generate(demo_clip(), "Which way does the red circle move?")
    >>> result.generated_text, result["tokens_before_stage1"]
    ('left', 288)

    Args:
        generated_text: the answer.
        tokens_before_stage1: visual tokens of the video.
        tokens_after_stage1: visual tokens that enter the LLM.
        tokens_before: visual tokens before stage 2.
        tokens_after: visual tokens after stage 2.
        total_compression_ratio: fraction of the visual tokens **removed** by both.
        report: the session's report for this call; the answer is one row of it.
    """

    generated_text: str
    tokens_before_stage1: int
    tokens_after_stage1: int
    tokens_before: int
    tokens_after: int
    total_compression_ratio: float
    report: Report = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def keys(self) -> list[str]:
        """Names of the fields."""
        return [each.name for each in fields(self)]


@dataclass(frozen=True)
class Comparison:
    """The same question answered by the plain model and by the pruned one, measured alike.

    >>> from tokenprune_qwen25vl import Qwen25VLPruneVid, demo_clip
    >>> pruned = Qwen25VLPruneVid(model=model, processor=processor)
    >>> pruned.compare(demo_clip(), "Which way does the red circle move?").same_answer
    True
    """

    plain: Answer
    pruned: Answer

    @property
    def same_answer(self) -> bool:
        """Whether both gave the same tokens."""
        return self.plain.token_ids == self.pruned.token_ids

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: answer, visual tokens, times, decode speed, KV bytes and peak memory of both."""
        report: Mapping[str, Any] = {} if self.pruned.report is None else self.pruned.report.to_dict()
        tokens = report["visual_tokens"][0]
        left = report["stages"][-1]["visual_after"][0] if report["stages"] else tokens
        return {
            "same_answer": self.same_answer,
            "plain": _measured(self.plain, tokens, report["kv_bytes_unpruned"]),
            "pruned": _measured(self.pruned, left, report["kv_bytes"]),
        }


def _measured(given: Answer, visual_tokens: int, kv_bytes: int | None) -> dict[str, Any]:
    steps = len(given.token_ids) - 1
    return {
        "answer": given.text,
        "visual_tokens": visual_tokens,
        "vision_seconds": given.vision_seconds,
        "prefill_seconds": given.prefill_seconds,
        "decode_tokens_per_second": steps / given.decode_seconds if steps else None,
        "kv_bytes": kv_bytes,
        "peak_memory_bytes": given.peak_memory_bytes,
    }
