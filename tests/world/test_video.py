# SPDX-License-Identifier: Apache-2.0
"""Clips as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokenprune.bench.world import FPS, FRAMES, HELD_OUT, sample, through_mp4, write_mp4
from tokenprune.bench.world.palette import COLOURS, DIRECTIONS, SHAPES

av = pytest.importorskip("av")


def test_a_clip_survives_its_file(tmp_path: Path) -> None:
    clip = sample(12)
    path = write_mp4(clip, tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == FPS
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)])
    assert frames.shape == (FRAMES, *clip.frames.shape[1:])
    error = np.mean((frames.astype(float) - clip.frames) ** 2)
    assert 10 * np.log10(255**2 / error) > 27
    # Not the same bits: the library's colour conversion rounds by where its buffers happen to lie in memory.
    assert np.abs(frames.astype(int) - through_mp4(clip.frames)).mean() < 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tokenprune.bench.world.video as video

    def broken(*_: object) -> None:
        raise RuntimeError("no encoder")

    monkeypatch.setattr(video, "encode", broken)
    with pytest.raises(RuntimeError, match="no encoder"):
        write_mp4(sample(1), tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []


def test_the_demo_clip_is_of_the_world() -> None:
    from tokenprune_qwen25vl.assets import DEMO_SEED, demo_clip

    clip = sample(DEMO_SEED)
    with av.open(str(demo_clip())) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    assert frames.shape == clip.frames.shape
    assert np.mean((frames.astype(float) - clip.frames) ** 2) < 130
    assert DEMO_SEED >= HELD_OUT
    (mover,) = clip.scene.movers
    assert (COLOURS[mover.colour], SHAPES[mover.shape], DIRECTIONS[mover.direction]) == ("red", "circle", "left")
