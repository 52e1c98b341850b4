# SPDX-License-Identifier: Apache-2.0
"""How the next token is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenprune.errors import InvalidValueError


@dataclass(frozen=True)
class Sampling:
    """Greedy where nothing is given; otherwise tokens are drawn (seed them with ``torch.manual_seed``).

    Args:
        temperature: above 0; None with ``top_p`` and ``top_k`` None means greedy.
        top_p: the smallest set of tokens with this probability, in (0, 1].
        top_k: this many most likely tokens, at least 1.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.temperature is not None and not self.temperature > 0:
            raise InvalidValueError(f"temperature must be above 0, got {self.temperature!r}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InvalidValueError(f"top_p must lie in (0, 1], got {self.top_p!r}")
        if self.top_k is not None and (isinstance(self.top_k, bool) or self.top_k < 1):
            raise InvalidValueError(f"top_k must be at least 1, got {self.top_k!r}")

    def options(self) -> dict[str, Any]:
        """Arguments of ``generate``; those a checkpoint brings along are overruled."""
        given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        draws = any(value is not None for value in given.values())
        return {"do_sample": draws, "num_beams": 1, **given}


GREEDY = Sampling()
