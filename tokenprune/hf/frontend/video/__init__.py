# SPDX-License-Identifier: Apache-2.0
"""Video files, frame folders and pictures to frames: what a player would show, at evenly spaced moments."""

from __future__ import annotations

from tokenprune.hf.frontend.video.clip import Damage, Frames, VideoClip
from tokenprune.hf.frontend.video.fit import Fit, ProcessorFit
from tokenprune.hf.frontend.video.load import load_clip
from tokenprune.hf.frontend.video.metadata import video_metadata
from tokenprune.hf.frontend.video.sampling import DEFAULT_FPS, FRAME_FACTOR, MAX_FRAMES, MIN_FRAMES, sample_indices

__all__ = [
    "DEFAULT_FPS",
    "FRAME_FACTOR",
    "MAX_FRAMES",
    "MIN_FRAMES",
    "Damage",
    "Fit",
    "Frames",
    "ProcessorFit",
    "VideoClip",
    "load_clip",
    "sample_indices",
    "video_metadata",
]
