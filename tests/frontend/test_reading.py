# SPDX-License-Identifier: Apache-2.0
"""What is read of long files: few packets, little memory, and pixels as the processor would have made them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
av = pytest.importorskip("av")

from frontend.files import noisy, write  # noqa: E402
from qwen25vl.tiny import tiny_processor  # noqa: E402

from tokenprune.hf.frontend.video import load_clip  # noqa: E402
from tokenprune.hf.frontend.video.runs import plan_runs  # noqa: E402
from tokenprune.hf.frontend.video.timeline import read_timeline  # noqa: E402
from tokenprune_qwen25vl.chat import Conversation, model_inputs, reading_fit  # noqa: E402

BUNNY = Path(__file__).parents[1] / "data" / "bigbuckbunny.mp4"


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [noisy(20 + place % 200) for place in range(600)]
    return write(tmp_path_factory.mktemp("long") / "long.mp4", frames, gop=50)


@pytest.mark.parametrize("frames", [2, 8, 40, 600])
def test_seeking_and_leaving_out_change_no_pixel(long_file: Path, frames: int) -> None:
    with av.open(str(long_file)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    clip = load_clip(long_file, frames=frames)
    assert clip.damage is None
    assert all(np.array_equal(frame, every[index]) for frame, index in zip(clip.frames, clip.indices))


def test_frames_far_apart_cost_what_they_depend_on(long_file: Path) -> None:
    timeline = read_timeline(long_file)
    runs = plan_runs(timeline, [0, 149, 299, 449])
    assert [timeline.packets[run.first].key for run in runs] == [True] * 4
    assert sum(run.last - run.first + 1 for run in runs) < 4 * 60


def test_frames_are_held_in_the_size_they_are_shown(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    path = write(tmp_path / "large.mp4", [np.roll(picture, place, axis=1) for place in range(48)])
    fit = reading_fit(tiny_processor(), 56 * 84)
    tracemalloc.start()
    try:
        clip = load_clip(path, frames=48, fit=fit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert clip.frames[0].size <= 3 * 56 * 84
    assert peak < 1.5 * clip.frames.nbytes + 4 * picture.nbytes  # one frame at a time in full


@pytest.mark.parametrize("max_pixels", [28 * 28 * 6, 28 * 28 * 20, None])
def test_small_frames_give_the_inputs_that_large_ones_give(max_pixels: int | None) -> None:
    processor = tiny_processor()
    whole = load_clip(BUNNY, frames=8)
    small = load_clip(BUNNY, frames=8, fit=reading_fit(processor, max_pixels))
    inputs = [model_inputs(processor, [Conversation("?", (clip,))], max_pixels) for clip in (whole, small)]
    assert small.frames.shape != whole.frames.shape
    for name in inputs[0]:
        assert torch.equal(inputs[0][name], inputs[1][name]), name


def test_frames_are_not_enlarged() -> None:
    processor = tiny_processor()
    size = int(processor.video_processor.size["longest_edge"])
    assert reading_fit(processor, max(size, 4096 * 4096)).size(28, 28, 4) is None


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    load_clip(BUNNY, frames=6, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(1, 7)]
