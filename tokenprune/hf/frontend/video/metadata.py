# SPDX-License-Identifier: Apache-2.0
"""A clip's times in the form that processors of transformers take."""

from __future__ import annotations

from typing import Any

from tokenprune.hf.frontend.video.clip import VideoClip

_CLOCK = 90_000
"""Ticks a second in which uneven times are told: whole numbers for the usual frame rates and for milliseconds."""


def video_metadata(clip: VideoClip) -> Any:
    """``VideoMetadata`` of a clip.

    Processors take a frame's time to be its index over the rate (Qwen3-VL writes it into the prompt), and the sampled
    rate to be the share of the frames that was sampled times the rate (Qwen2.5-VL's ``second_per_grid_ts``). Where the
    clip's times are not those of its indices, indices and rate are therefore told on a clock of 90 000 ticks a second.
    """
    from transformers.video_utils import VideoMetadata

    height, width = clip.frames.shape[1:3]
    total, fps, indices = clip.total_frames, clip.fps, list(clip.indices)
    if any(abs(time - index / fps) > 0.5 / fps for time, index in zip(clip.times, indices)):
        total, fps = round(clip.duration * _CLOCK), float(_CLOCK)
        indices = [round(time * _CLOCK) for time in clip.times]
    return VideoMetadata(
        total_num_frames=total, fps=fps, width=width, height=height, duration=clip.duration, frames_indices=indices
    )
