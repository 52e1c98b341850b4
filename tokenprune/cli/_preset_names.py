# SPDX-License-Identifier: Apache-2.0
"""What the presets are called, for help and completion: both must be there at once, without importing torch."""

from __future__ import annotations

PRESETS = (
    "conservative",
    "default",
    "aggressive",
    "stage1_only",
    "stage2_only",
    "baseline",
    "recommended",
    "recommended_serving",
)
"""The names of :func:`tokenprune.presets`."""

PRESET_HELP = f"A named pipeline: {', '.join(PRESETS)}"


def complete_preset(incomplete: str) -> list[str]:
    """The presets whose names begin so; the shell asks."""
    return [name for name in PRESETS if name.startswith(incomplete)]
