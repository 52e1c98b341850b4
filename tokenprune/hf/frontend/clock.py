# SPDX-License-Identifier: Apache-2.0
"""When the tokens of one answer arrive, and how long the vision tower takes."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(eq=False)
class Clock:
    """A streamer that notes when tokens arrive, and hooks that time the vision tower; all in seconds from the start."""

    device: torch.device
    vision: float = field(default=0.0, init=False)
    first_token: float = field(default=0.0, init=False)
    last_token: float = field(default=0.0, init=False)
    _origin: float = field(default=0.0, init=False)
    _entered: float = field(default=0.0, init=False)
    _puts: int = field(default=0, init=False)

    def start(self) -> None:
        self._origin = self._now()

    def put(self, value: Tensor) -> None:
        """Called by ``generate`` with the prompt, then with every new token."""
        self._puts += 1
        if self._puts > 1:
            self.last_token = self._now() - self._origin
        if self._puts == 2:
            self.first_token = self.last_token

    def end(self) -> None:
        """Called by ``generate`` after the last token, which `put` has seen."""

    @contextmanager
    def watching(self, tower: nn.Module) -> Generator[None, None, None]:
        """Time the forwards of ``tower``."""
        handles = (tower.register_forward_pre_hook(self._enter), tower.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._entered = self._now()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.vision += self._now() - self._entered

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
