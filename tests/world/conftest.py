# SPDX-License-Identifier: Apache-2.0
"""What trained the shipped checkpoint is an example outside the package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "examples" / "tiny-qwen-world"))
