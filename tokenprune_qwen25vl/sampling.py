# SPDX-License-Identifier: Apache-2.0
"""How the next token is chosen; alike for every model family."""

from __future__ import annotations

from tokenprune.hf.frontend.next_token import GREEDY, Sampling

__all__ = ["GREEDY", "Sampling"]
