# SPDX-License-Identifier: Apache-2.0
"""Folders, lists, animated and single pictures are videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

from frontend.files import HEIGHT, WIDTH, grey  # noqa: E402

from tokenprune.errors import InvalidValueError, VideoError  # noqa: E402
from tokenprune.hf.frontend.video import load_clip  # noqa: E402


def save(path: Path, level: float, height: int = HEIGHT) -> Path:
    Image.fromarray(grey(level, height)).save(path)
    return path


def levels(frames: np.ndarray) -> list[float]:
    return [float(frame.mean()) for frame in frames]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(1, 12):
        save(tmp_path / f"frame{number}.png", 10 * number)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_is_read_whole_in_the_order_of_its_numbers(folder: Path) -> None:
    clip = load_clip(folder)
    assert levels(clip.frames) == [10.0 * number for number in range(1, 12)]
    assert clip.times == pytest.approx([place / 2 for place in range(11)])
    assert (clip.total_frames, clip.fps) == (11, 2.0)


def test_a_folder_is_sampled_like_a_video(folder: Path) -> None:
    assert load_clip(folder, frames=4).indices == (0, 2, 5, 8)
    clip = load_clip(folder, fps=1.0, pictures_fps=1.0, max_frames=6)
    assert (clip.indices, clip.duration) == ((0, 1, 3, 5, 7, 9), 11.0)
    assert len(load_clip(folder, max_frames=5).frames) == 5


def test_a_list_keeps_its_order_and_takes_pil_images(folder: Path) -> None:
    sources = [str(folder / "frame3.png"), folder / "frame1.png", Image.fromarray(grey(200))]
    assert levels(load_clip(sources).frames) == [30.0, 10.0, 200.0]


def test_one_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    clip = load_clip(save(tmp_path / "one.png", 70))
    assert (clip.frames.shape, clip.indices) == ((1, HEIGHT, WIDTH, 3), (0,))


def test_a_photo_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    Image.fromarray(grey(70)).save(path, exif=exif)
    assert load_clip(path).frames.shape == (1, WIDTH, HEIGHT, 3)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animated_pictures_are_sampled_by_time(tmp_path: Path, suffix: str) -> None:
    pictures = [Image.fromarray(grey(20 + 50 * place)) for place in range(4)]
    path = tmp_path / f"moving.{suffix}"
    times = [100, 300, 400, 800]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=times, loop=0)
    clip = load_clip(path, frames=4)
    assert clip.times == pytest.approx([0.0, 0.4, 0.8, 1.2])
    assert levels(clip.frames) == pytest.approx([20, 120, 170, 170], abs=4)
    assert clip.duration == pytest.approx(1.6)


def test_sixteen_bits_of_grey_are_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 100 << 8, dtype=np.uint16)).save(path)
    assert levels(load_clip(path).frames) == [100.0]


def test_what_cannot_be_one_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="at least one"):
        load_clip([])
    with pytest.raises(VideoError, match="no such picture"):
        load_clip([tmp_path / "none.png"])
    with pytest.raises(VideoError, match="folder without pictures"):
        load_clip(tmp_path)
    with pytest.raises(VideoError, match="one size"):
        load_clip([save(tmp_path / "a.png", 10), save(tmp_path / "b.png", 10, 2 * HEIGHT)])
    broken = tmp_path / "broken.png"
    broken.write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(VideoError, match=r"broken\.png"):
        load_clip(broken)
    with pytest.raises(InvalidValueError, match="fps"):
        load_clip(tmp_path, pictures_fps=0.0)
