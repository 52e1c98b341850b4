# SPDX-License-Identifier: Apache-2.0
"""How the next token is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown


@dataclass(frozen=True)
class Sampling:
    """Greedy where nothing is given; otherwise tokens are drawn (seed them with ``torch.manual_seed``).

    >>> Sampling(temperature=0.7, top_k=20)
    Sampling(temperature=0.7, top_p=None, top_k=20)

    Args:
        temperature: above 0; None is 1, or greedy where all three are None.
        top_p: draw from the smallest set of tokens with this probability, in (0, 1]; None is all.
        top_k: draw from this many most likely tokens, at least 1; None is all.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.temperature is not None and not (_is_number(self.temperature) and 0 < self.temperature < math.inf):
            raise InvalidValueError(f"temperature must be a number above 0, got {shown(self.temperature)}")
        if self.top_p is not None and not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise InvalidValueError(f"top_p must lie in (0, 1], got {shown(self.top_p)}")
        if self.top_k is not None and (
            isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 1
        ):
            raise InvalidValueError(f"top_k must be a whole number of at least 1, got {shown(self.top_k)}")

    def options(self) -> dict[str, Any]:
        """Arguments of ``generate``; those a checkpoint brings along are overruled."""
        if self == GREEDY:
            return {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
        return {
            "do_sample": True,
            "num_beams": 1,
            # Written out, because the library puts defaults of its own, top_k=50 for one, where it finds None.
            "temperature": 1.0 if self.temperature is None else float(self.temperature),
            "top_p": 1.0 if self.top_p is None else float(self.top_p),
            "top_k": 0 if self.top_k is None else self.top_k,
        }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


GREEDY = Sampling()
