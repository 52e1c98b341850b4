# SPDX-License-Identifier: Apache-2.0
"""What trained the shipped checkpoint, and what asks about longer clips, are examples outside the package."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
sys.path[:0] = [str(EXAMPLES), str(EXAMPLES / "tiny-qwen-world")]
