# SPDX-License-Identifier: Apache-2.0
"""Where the videos and images of a Qwen2.5-VL prompt stand, read from its ids and M-RoPE positions alone."""

from __future__ import annotations

from tokenprune.adapter import Prompt, VisualSpan
from tokenprune.hf import placeholder_runs
from tokenprune.hf.families.grids.mrope import mrope_spans


def visual_boundaries(prompt: Prompt, placeholders: dict[str, int]) -> list[list[VisualSpan]]:
    """Per row its videos and images: each run of one placeholder id is one item.

    Args:
        prompt: ids and positions of one prefill.
        placeholders: modality -> placeholder id.

    Raises:
        UnsupportedModeError: there are visual tokens without M-RoPE positions (``mm_token_type_ids`` missing), or
            positions that form no grid.
    """
    return mrope_spans(prompt, placeholder_runs(prompt, placeholders))
