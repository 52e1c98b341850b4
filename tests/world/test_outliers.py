# SPDX-License-Identifier: Apache-2.0
"""Clips of the world as the shipped model sees them hold no outliers that would change what Cover keeps."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")


import tokenprune as tp
from tokenprune.bench.world.palette import FPS
from tokenprune.bench.world.render import render
from tokenprune.bench.world_benchmark.answering import see
from tokenprune.bench.world_benchmark.asked import ask_world
from tokenprune.cli.eval import find_benchmark
from tokenprune.hf.frontend.loading import load
from tokenprune.hf.frontend.video import VideoClip


def test_on_the_world_no_anchor_changes() -> None:
    loaded = load(find_benchmark("world").family, None, None, None, None)  # type: ignore[attr-defined]
    for clip in ask_world(40, seed=303)[:6]:
        seen = see(loaded, VideoClip.from_frames(render(clip.scene), FPS), [clip.questions[0].text])
        tokens = tp.VisualTokens(seen.features[0], (8, 6, 6))
        for keep_ratio in (0.02, 0.05, 0.1, 0.15, 0.25):
            robust, exact = (tp.Cover(keep_ratio=keep_ratio, outliers=share).plan(tokens) for share in (0.1, 1.0))
            for part in ("anchors", "assign", "scores"):
                assert torch.equal(getattr(robust, part), getattr(exact, part))
