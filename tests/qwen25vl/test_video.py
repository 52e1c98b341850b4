# SPDX-License-Identifier: Apache-2.0
"""Which frames are sampled from a file, and that every kind of bad file is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokenprune.errors import InvalidValueError, VideoError

pytest.importorskip("transformers")
av = pytest.importorskip("av")

from tokenprune_qwen25vl.video import VideoClip, load_clip, sample_indices  # noqa: E402

BUNNY = Path(__file__).parents[1] / "data" / "bigbuckbunny.mp4"


def write_video(path: Path, count: int, codec: str = "libx264", fps: int = 5, side: int = 64, **options: str) -> Path:
    """Grey frames, each 10 brighter than the one before."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width = stream.height = side
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for i in range(count):
            grey = np.full((side, side, 3), 20 + 10 * i, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("total", "native", "options", "expected"),
    [
        (66, 12.5, {}, tuple(i * 66 // 10 for i in range(10))),  # 5.28 s at 2 a second is 10.56: 10
        (100, 10.0, {"fps": 1.0}, tuple(range(0, 100, 10))),
        (100, 10.0, {"fps": 0.01}, (0, 25, 50, 75)),  # never fewer than 4
        (10_000, 10.0, {"fps": 10.0, "max_frames": 4}, (0, 2500, 5000, 7500)),
        (7, 10.0, {"fps": 10.0}, tuple(i * 7 // 6 for i in range(6))),
        (3, 25.0, {}, (0, 1)),
        (2, 25.0, {}, (0, 1)),
        (1, 25.0, {}, (0,)),
        (48, 12.0, {"frames": 8}, tuple(range(0, 48, 6))),
        (48, 12.0, {"frames": 5}, (0, 12, 24, 36)),
        (48, 12.0, {"frames": 1}, (0,)),
        (6, 12.0, {"frames": 100}, (0, 1, 2, 3, 4, 5)),
    ],
)
def test_sampled_frames(total: int, native: float, options: dict[str, float], expected: tuple[int, ...]) -> None:
    assert sample_indices(total, native, **options) == expected


@pytest.mark.parametrize("frames", [0, -2, 2.0, True, "8"])
def test_frames_must_be_a_count(frames: object) -> None:
    with pytest.raises(InvalidValueError, match="frames"):
        sample_indices(10, 5.0, frames=frames)


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf"), True])
def test_fps_must_be_positive(fps: float) -> None:
    with pytest.raises(InvalidValueError, match="fps"):
        sample_indices(10, 5.0, fps=fps)


def test_frames_and_fps_exclude_each_other() -> None:
    with pytest.raises(InvalidValueError, match="not both"):
        load_clip(BUNNY, frames=4, fps=1.0)


def test_a_real_clip() -> None:
    clip = load_clip(BUNNY, frames=8)
    assert clip.frames.shape == (8, 180, 320, 3)
    assert clip.indices == tuple(i * 66 // 8 for i in range(8))
    assert (clip.total_frames, clip.fps) == (66, 12.5)
    with av.open(str(BUNNY)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frame, index in zip(clip.frames, clip.indices):
        assert np.array_equal(frame, every[index])


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("gif", "gif"), ("avi", "mpeg4")]
)
def test_containers_that_do_and_do_not_count_their_frames(tmp_path: Path, suffix: str, codec: str) -> None:
    clip = load_clip(write_video(tmp_path / f"video.{suffix}", 6, codec), frames=6)
    assert clip.total_frames == 6
    brightness = clip.frames.mean(axis=(1, 2, 3))
    assert (np.diff(brightness) > 3).all()


def test_one_frame(tmp_path: Path) -> None:
    clip = load_clip(write_video(tmp_path / "one.mp4", 1))
    assert clip.frames.shape == (1, 64, 64, 3)
    assert clip.indices == (0,)


def refused(path: Path, saying: str) -> None:
    with pytest.raises(VideoError) as caught:
        load_clip(path)
    message = str(caught.value)
    assert saying in message
    assert str(path) in message
    assert "\n" not in message


def test_missing(tmp_path: Path) -> None:
    refused(tmp_path / "none.mp4", "no such video file")


def test_a_directory(tmp_path: Path) -> None:
    refused(tmp_path, "not a video file")


def test_an_address_is_not_fetched() -> None:
    for address in ("https://example.org/video.mp4", Path("http://example.org/video.mp4")):
        with pytest.raises(VideoError, match="download it first"):
            load_clip(address)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    refused(path, "is empty")


@pytest.mark.parametrize("name", ["text.mp4", "text.txt"])
def test_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("not a video\n" * 100)
    refused(path, "video")


def test_sound_without_pictures(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    refused(path, "no video in it")


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_cut_off_after_the_index(tmp_path: Path, share: float) -> None:
    data = BUNNY.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: int(len(data) * share)])
    clip = load_clip(path, frames=4)
    assert clip.damage is not None
    assert clip.damage.cut_off
    assert clip.damage.found + clip.damage.missing == 66
    assert clip.duration == pytest.approx(clip.damage.found / 12.5)


def test_cut_off_before_the_first_frame(tmp_path: Path) -> None:
    data = BUNNY.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: data.index(b"mdat") + 100])
    refused(path, "cut off")


def test_cut_off_before_the_index(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 8)  # without faststart the index stands at the end
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[:-200])
    refused(path, "cut off")


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    data = bytearray(BUNNY.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(bytes(data))
    refused(path, "damaged")


def test_a_clip_checks_its_frames() -> None:
    frames = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    assert VideoClip.from_frames(frames, fps=2.0).indices == (0, 1, 2, 3)
    with pytest.raises(InvalidValueError, match="uint8"):
        VideoClip.from_frames(frames.astype(np.float32))
    with pytest.raises(InvalidValueError, match="one index a frame"):
        VideoClip(frames, (0, 1), 4, 2.0)
    with pytest.raises(InvalidValueError, match="one index a frame"):
        VideoClip.from_frames(frames[:0])
    with pytest.raises(InvalidValueError, match="fps"):
        VideoClip.from_frames(frames, fps=0.0)
