# SPDX-License-Identifier: Apache-2.0
"""Files are read as a player shows them: upright, at their times, only what is presented, from the right stream."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
av = pytest.importorskip("av")

from frontend.files import HEIGHT, ONE, WIDTH, grey, noisy, with_matrix, write  # noqa: E402

from tokenprune.errors import VideoError  # noqa: E402
from tokenprune.hf.frontend.video import load_clip, video_metadata  # noqa: E402
from tokenprune.hf.frontend.video.orient import turned  # noqa: E402


def levels(frames: np.ndarray) -> list[float]:
    return [float(frame.mean()) for frame in frames]


def cornered(frame: np.ndarray) -> tuple[str, str]:
    """In which corners the red and the blue patch lie."""
    height, width = (side // 4 for side in frame.shape[:2])
    corners = {
        "top left": frame[:height, :width],
        "top right": frame[:height, -width:],
        "bottom left": frame[-height:, :width],
        "bottom right": frame[-height:, -width:],
    }
    mean = {name: patch.reshape(-1, 3).mean(axis=0) for name, patch in corners.items()}
    return max(mean, key=lambda name: mean[name][0]), max(mean, key=lambda name: mean[name][2])


@pytest.mark.parametrize(
    ("matrix", "red", "blue"),
    [
        ((1, 0, 0, 1), "top left", "top right"),
        ((0, 1, -1, 0), "top right", "bottom right"),  # 90 degrees clockwise
        ((-1, 0, 0, -1), "bottom right", "bottom left"),
        ((0, -1, 1, 0), "bottom left", "top left"),  # 90 degrees counter-clockwise
        ((-1, 0, 0, 1), "top right", "top left"),
        ((1, 0, 0, -1), "bottom left", "bottom right"),
        ((0, 1, 1, 0), "top left", "bottom left"),
        ((0, -1, -1, 0), "bottom right", "top right"),
    ],
)
def test_a_display_matrix_is_followed(tmp_path: Path, matrix: tuple[int, int, int, int], red: str, blue: str) -> None:
    picture = grey(0)
    picture[:16, :24, 0] = 250
    picture[:16, -24:, 2] = 250
    frames = load_clip(with_matrix(write(tmp_path / "phone.mp4", [picture] * 4), *matrix)).frames
    turns = matrix[0] == 0
    assert frames.shape == ((4, WIDTH, HEIGHT, 3) if turns else (4, HEIGHT, WIDTH, 3))
    assert {cornered(frame) for frame in frames} == {(red, blue)}


def test_other_turns_go_to_the_nearest_quarter() -> None:
    picture = np.zeros((2, 4, 3), dtype=np.uint8)
    assert turned(picture, (ONE // 5, ONE, -ONE, ONE // 5)).shape == (4, 2, 3)
    assert turned(picture, (ONE, ONE // 5, -ONE // 5, ONE)).shape == (2, 4, 3)


def test_pixels_that_are_no_squares_are_widened(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(90), format="rgb24")))
        container.mux(stream.encode())
    assert load_clip(path).frames.shape == (1, HEIGHT, WIDTH * 4 // 3, 3)


UNEVEN = [place / 25 for place in range(50)] + [2 + place / 5 for place in range(10)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_uneven_frames_are_sampled_by_time(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"uneven.{suffix}", [grey(20 + 50 * time) for time in UNEVEN], UNEVEN)
    clip = load_clip(path, frames=16)
    assert clip.duration == pytest.approx(3.84, abs=0.01)  # the last frame lasts as long as the file says
    assert clip.times == pytest.approx([place * clip.duration / 16 for place in range(16)])
    shown = [max(time for time in UNEVEN if time <= moment + 0.001) for moment in clip.times]
    assert levels(clip.frames) == pytest.approx([20 + 50 * time for time in shown], abs=4)
    metadata = video_metadata(clip)
    assert metadata.timestamps == pytest.approx(clip.times, abs=1e-4)
    assert metadata.sampled_fps == pytest.approx(16 / clip.duration, abs=1e-3)
    assert len(load_clip(path, fps=2.0).frames) == 6  # of 7.68


def test_the_processor_is_told_the_time_between_uneven_frames(tmp_path: Path) -> None:
    from qwen25vl.tiny import tiny_processor

    from tokenprune_qwen25vl.chat import Conversation, model_inputs

    clip = load_clip(write(tmp_path / "uneven.mp4", [grey(90)] * 60, UNEVEN), frames=16)
    inputs = model_inputs(tiny_processor(), [Conversation("?", (clip,))])
    assert float(inputs["second_per_grid_ts"][0]) == pytest.approx(2 * clip.duration / 16, abs=1e-3)


def test_times_rounded_to_milliseconds_count_as_even(tmp_path: Path) -> None:
    path = write(tmp_path / "thirty.mkv", [grey(10 + 8 * place) for place in range(30)], fps=30)
    clip = load_clip(path, frames=30)
    assert clip.indices == tuple(range(30))
    assert (clip.total_frames, clip.fps) == (30, 30.0)


def test_a_last_frame_that_stays_counts_as_long_as_it_stays(tmp_path: Path) -> None:
    """A GIF whose last picture is held for three seconds."""
    image = pytest.importorskip("PIL.Image")
    pictures = [image.fromarray(grey(20 + 40 * place)) for place in range(6)]
    path = tmp_path / "held.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[200] * 5 + [3000], loop=0)
    clip = load_clip(path, frames=4)
    assert clip.duration == pytest.approx(4.0)
    assert clip.indices == (0, 5, 5, 5)
    assert levels(clip.frames) == pytest.approx([20, 220, 220, 220], abs=4)


def test_a_trim_without_recoding_shows_only_what_its_edit_presents(tmp_path: Path) -> None:
    path = write(
        tmp_path / "trim.mp4",
        [noisy(20 + 4 * place) for place in range(50)],
        shift=-13 / 25,
        options={"avoid_negative_ts": "disabled"},
    )
    with av.open(str(path)) as container:
        assert any(packet.is_discard for packet in container.demux(video=0))
    clip = load_clip(path, frames=36)
    assert clip.damage is None
    assert clip.total_frames == 37
    assert clip.times[0] == 0.0
    assert levels(clip.frames) == pytest.approx([20 + 4 * (13 + place) for place in clip.indices], abs=4)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_video_that_begins_late_begins_at_its_first_frame(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"late.{suffix}", [grey(20 + 4 * place) for place in range(20)], shift=5.0)
    clip = load_clip(path, frames=4)
    assert (clip.indices, clip.times, clip.fps) == ((0, 5, 10, 15), (0.0, 0.2, 0.4, 0.6), 25.0)
    assert clip.damage is None


@pytest.mark.parametrize(
    ("suffix", "default", "shown"), [("mkv", None, 2), ("mp4", 1, 2), ("mp4", 0, 1), ("mkv", 0, 1)]
)
def test_of_two_streams_the_default_one_or_the_larger_is_read(
    tmp_path: Path, suffix: str, default: int | None, shown: int
) -> None:
    path = tmp_path / f"two.{suffix}"
    with av.open(str(path), "w") as container:
        streams = []
        for place, scale in enumerate((1, 2)):
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = HEIGHT * scale, WIDTH * scale, "yuv420p"
            stream.disposition = 1 if place == default else 0
            streams.append((stream, scale))
        for _ in range(8):
            for stream, scale in streams:
                picture = grey(100 * scale, HEIGHT * scale, WIDTH * scale)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream, _ in streams:
            container.mux(stream.encode())
    clip = load_clip(path)
    assert clip.frames.shape[1:3] == (shown * HEIGHT, shown * WIDTH)
    assert levels(clip.frames) == pytest.approx([100 * shown] * len(clip.frames), abs=4)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    cover, sound = tmp_path / "cover.png", tmp_path / "sound.mp3"
    image.new("RGB", (32, 32)).save(cover)
    with av.open(str(sound), "w") as container:
        try:
            stream = container.add_stream("libmp3lame", rate=16000)
        except Exception:
            pytest.skip("this PyAV encodes no MP3")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    picture = b"\0image/png\0\3\0" + cover.read_bytes()
    tag = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    size = bytes(len(tag) >> shift & 0x7F for shift in (21, 14, 7, 0))
    path = tmp_path / "song.mp3"
    path.write_bytes(b"ID3\3\0\0" + size + tag + sound.read_bytes())
    with pytest.raises(VideoError, match="no video in it but a cover picture"):
        load_clip(path)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("ten.mp4", "libx264", "yuv420p10le"),
        ("ten.mov", "prores", "yuv422p10le"),
        ("nine.webm", "libvpx-vp9", "yuv420p"),
        ("eight.webm", "libvpx", "yuv420p"),
        ("four.avi", "mpeg4", "yuv420p"),
        ("stream.ts", "libx264", "yuv420p"),
        ("raw.h264", "libx264", "yuv420p"),
    ],
)
def test_kinds_of_files(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    pictures = [grey(20 + 10 * place, WIDTH, HEIGHT) for place in range(20)]  # upright
    clip = load_clip(write(tmp_path / name, pictures, codec=codec, pix_fmt=pix_fmt), frames=10)
    assert clip.frames.shape == (10, WIDTH, HEIGHT, 3)
    assert levels(clip.frames) == pytest.approx([20 + 20 * place for place in range(10)], abs=5)
    assert (clip.total_frames, clip.damage) == (20, None)


def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.mp4", [grey(90)] * 4).rename(tmp_path / "at 12:30.mp4")
    assert load_clip(path).total_frames == 4
