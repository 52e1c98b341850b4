# SPDX-License-Identifier: Apache-2.0
"""Tiny clips to reckon with on paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

E1, E2, E3 = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def rows(*tokens: Sequence[float] | float) -> np.ndarray:
    """Tokens in raster order, single numbers as vectors of one channel."""
    return np.array([[token] if isinstance(token, (int, float)) else token for token in tokens], dtype=np.float64)


def turned(*degrees: float) -> np.ndarray:
    """Unit vectors at these angles."""
    return np.array([[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in degrees])
