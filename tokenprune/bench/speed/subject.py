# SPDX-License-Identifier: Apache-2.0
"""One thing that the micro-benchmark of the operators measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Run = Callable[[], Tensor]
"""What is timed."""


@dataclass(frozen=True)
class Subject:
    """One thing to measure.

    Args:
        ready: makes what one run is given, and the run; not timed. Plans and tokens are new each time, so that no run
            finds what another one left in them.
        keeps: whether what a run returns has one entry for each token kept.
    """

    ready: Callable[[], Run]
    keeps: bool = True
