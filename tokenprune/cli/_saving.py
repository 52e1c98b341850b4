# SPDX-License-Identifier: Apache-2.0
"""What pruning saved, in one line and as figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Saving:
    """What a pruned answer needed, beside the plain model; None is not known.

    Args:
        visual_tokens_before: of the prompt.
        visual_tokens_after: that the last layers still saw.
        visual_tokens_ratio: the first over the second; None where none is left.
        kv_ratio: bytes of the KV cache after the prefill, unpruned over pruned.
        prefill_ratio: seconds of the prefill, plain over pruned.
        same_answer: whether both answers have the same tokens.
    """

    visual_tokens_before: int
    visual_tokens_after: int
    visual_tokens_ratio: float | None
    kv_ratio: float | None
    prefill_ratio: float | None = None
    same_answer: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def line(self) -> str:
        """Such as ``288 -> 41 visual tokens (7.0x fewer), KV 4.5x smaller``; what is not known is left out."""
        tokens = f"{self.visual_tokens_before} -> {self.visual_tokens_after} visual tokens"
        if self.visual_tokens_ratio is not None and ratio_text(self.visual_tokens_ratio) != ratio_text(1):
            tokens += f" ({ratio_text(self.visual_tokens_ratio)} fewer)"
        parts = [tokens]
        if self.kv_ratio is not None:
            parts.append(f"KV {_compared(self.kv_ratio, 'smaller', 'larger', 'large')}")
        if self.prefill_ratio is not None:
            parts.append(f"prefill {_compared(self.prefill_ratio, 'faster', 'slower', 'fast')}")
        if self.same_answer is not None:
            parts.append("same answer" if self.same_answer else "another answer")
        return ", ".join(parts)


def saving(pruned: Mapping[str, Any], plain: Mapping[str, Any] | None, same_answer: bool | None) -> Saving | None:
    """What ``pruned`` saved; None where it has no report.

    Args:
        pruned: from :func:`tokenprune.cli._answer.answer_to_dict`, of one prompt.
        plain: the plain model's; None where it did not run.
        same_answer: None where the plain model did not run.
    """
    report = pruned["report"]
    if report is None:
        return None
    before = report["visual_tokens"][0]
    after = report["stages"][-1]["visual_after"][0] if report["stages"] else before
    return Saving(
        visual_tokens_before=before,
        visual_tokens_after=after,
        visual_tokens_ratio=ratio(before, after),
        kv_ratio=ratio(report["kv_bytes_unpruned"], report["kv_bytes"]),
        prefill_ratio=None if plain is None else ratio(plain["seconds"]["prefill"], pruned["seconds"]["prefill"]),
        same_answer=same_answer,
    )


def ratio(plain: float | None, pruned: float | None) -> float | None:
    """How many times as much the plain model needs; None where one of them is not known, or the second nothing."""
    return None if plain is None or not pruned else plain / pruned


def ratio_text(value: float | None) -> str:
    """``4.5x``, or nothing."""
    return "" if value is None else f"{value:.1f}x"


def _compared(value: float, less: str, more: str, alike: str) -> str:
    if ratio_text(value) == ratio_text(1):
        return f"about as {alike}"
    return f"{ratio_text(value)} {less}" if value > 1 else f"{ratio_text(1 / value)} {more}"
