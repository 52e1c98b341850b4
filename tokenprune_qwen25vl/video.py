# SPDX-License-Identifier: Apache-2.0
"""Video files to frames, as Qwen2.5-VL samples them; what reads them serves every model family."""

from __future__ import annotations

from tokenprune.hf.frontend.video import (
    DEFAULT_FPS,
    FRAME_FACTOR,
    MAX_FRAMES,
    MIN_FRAMES,
    Damage,
    Frames,
    VideoClip,
    load_clip,
    sample_indices,
)

__all__ = [
    "DEFAULT_FPS",
    "FRAME_FACTOR",
    "MAX_FRAMES",
    "MIN_FRAMES",
    "Damage",
    "Frames",
    "VideoClip",
    "load_clip",
    "sample_indices",
]
