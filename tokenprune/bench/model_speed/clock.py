# SPDX-License-Identifier: Apache-2.0
"""What one ``generate`` took, and where."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.bench.model_speed.decoder_sizes import cache_bytes
from tokenprune.hf.frontend.family import Parts
from tokenprune.hf.release import cache_of
from tokenprune.runtime.timing import Timestamp


class AnswerClock:
    """A streamer that notes when tokens arrive, and hooks that time the vision tower and the decoder's first forward.

    On a GPU the times are those of CUDA events; ``generate`` itself waits for each token before it is put here, and
    nothing else is waited for. (`torch.utils.benchmark` times whole statements; it would have to wait between parts.)

    Args:
        device: where the model runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kv_bytes: int | None = None
        self._start: Timestamp | None = None
        self._tower: list[Timestamp] = []
        self._prefill: list[Timestamp] = []
        self._tokens: list[Timestamp] = []
        self._puts = 0

    @contextmanager
    def watching(self, parts: Parts) -> Generator[None, None, None]:
        """Time these parts. Open it last: what others have hooked to them by then is inside the times."""
        tower, text = parts.tower, parts.text
        handles = (
            tower.register_forward_pre_hook(lambda *_: self._note(self._tower), prepend=True),
            tower.register_forward_hook(lambda *_: self._note(self._tower)),
            text.register_forward_pre_hook(self._enter_text, with_kwargs=True, prepend=True),
            text.register_forward_hook(self._leave_text, with_kwargs=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def start(self) -> None:
        """The answer begins."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._start = Timestamp.now(self.device)

    def put(self, value: Tensor) -> None:
        """Called by ``generate`` with the prompt, then with every new token of all rows."""
        self._puts += 1
        if self._puts > 1:
            self._note(self._tokens)

    def end(self) -> None:
        """Called by ``generate`` after the last token, which `put` has seen."""

    @property
    def new_tokens(self) -> int:
        """Tokens of each row, the first among them."""
        return len(self._tokens)

    def seconds(self) -> dict[str, float]:
        """``llm_prefill_seconds``; ``first_token_seconds`` and ``whole_seconds`` from the start, without the time of
        the tower; ``decode_seconds`` from the first token to the last.
        """  # fmt: skip
        if self._start is None or not self._tokens or len(self._prefill) != 2:
            raise RuntimeError("nothing was generated while this clock ran")
        tower = self._tower[0].until(self._tower[-1]) if self._tower else 0.0
        first, last = self._tokens[0], self._tokens[-1]
        return {
            "llm_prefill_seconds": self._prefill[0].until(self._prefill[1]),
            "first_token_seconds": self._start.until(first) - tower,
            "whole_seconds": self._start.until(last) - tower,
            "decode_seconds": first.until(last),
        }

    def _enter_text(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if not self._prefill:
            self._note(self._prefill)

    def _leave_text(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if len(self._prefill) == 1:
            self._note(self._prefill)
            self.kv_bytes = cache_bytes(cache_of(output))

    def _note(self, stamps: list[Timestamp]) -> None:
        stamps.append(Timestamp.now(self.device))
