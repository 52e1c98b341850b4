# SPDX-License-Identifier: Apache-2.0
"""A file that is damaged is read as far as it goes, and what was lost is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("av")

from frontend.files import changed, cut, noisy, write, zeroed

from tokenprune.errors import VideoError
from tokenprune.hf.frontend.video import Damage, load_clip

FRAMES = [noisy(20 + 2 * place) for place in range(100)]


def levels(frames: np.ndarray) -> list[float]:
    return [float(frame.mean()) for frame in frames]


def expected(indices: tuple[int, ...]) -> list[float]:
    return [float(FRAMES[index].mean()) for index in indices]


@pytest.mark.parametrize(
    ("name", "codec", "share", "options"),
    [
        ("cut.mkv", "libx264", 0.45, {}),
        ("cut.webm", "libvpx-vp9", 0.45, {}),
        ("cut.mp4", "libx264", 0.45, {"movflags": "faststart"}),
        ("cut.avi", "mpeg4", 0.75, {}),  # its header is long
    ],
)
def test_a_cut_file_is_read_to_its_end(
    tmp_path: Path, name: str, codec: str, share: float, options: dict[str, str]
) -> None:
    whole = write(tmp_path / name, FRAMES, codec=codec, options=options)
    assert load_clip(whole, frames=8).damage is None
    clip = load_clip(changed(whole, cut(share)), frames=8)
    damage = clip.damage
    assert damage is not None
    assert damage.cut_off
    assert 20 < damage.found < 80
    assert damage.found == clip.total_frames
    assert damage.found + damage.missing == pytest.approx(100, abs=1)
    assert levels(clip.frames) == pytest.approx(expected(clip.indices), abs=6)
    assert str(damage).startswith("the file is cut off, about ")


def test_a_fault_in_the_middle_of_an_mp4_freezes_the_picture(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4", FRAMES)
    clip = load_clip(changed(whole, zeroed(0.45, 0.55)), frames=50)
    damage = clip.damage
    assert damage is not None
    assert 1 <= damage.stand_ins <= 12
    assert not damage.cut_off
    wrong = [
        place
        for place, (shown, meant) in enumerate(zip(levels(clip.frames), expected(clip.indices)))
        if abs(shown - meant) > 6
    ]
    assert all(15 < place < 35 for place in wrong)
    assert all(clip.frames[place].mean() < 20 + 4 * place for place in wrong)  # what came before


def test_a_fault_in_the_middle_of_a_matroska_file_leaves_a_pause(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mkv", FRAMES)
    clip = load_clip(changed(whole, zeroed(0.45, 0.55)), frames=16)
    damage = clip.damage
    assert damage is not None
    assert not damage.cut_off
    assert damage.found + damage.missing == pytest.approx(100, abs=2)
    assert clip.duration == pytest.approx(4.0)
    assert clip.times == pytest.approx([place / 4 for place in range(16)])
    late = [place for place in range(16) if not 1.5 <= clip.times[place] <= 2.8]
    meant = [20 + 50 * clip.times[place] for place in late]
    assert levels(clip.frames[late]) == pytest.approx(meant, abs=7)


def test_what_lies_behind_an_mp4_is_no_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "whole.mp4", FRAMES[:8])
    assert load_clip(changed(path, lambda data: data + b"\x7fpadding that somebody appended")).damage is None


def test_an_index_that_misleads_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenprune.hf.frontend.video import reader

    def astray(self: reader.Reader, run: object) -> None:
        raise reader.SeekFaultError

    path = write(tmp_path / "whole.mp4", FRAMES)
    clip = load_clip(path, frames=2)
    monkeypatch.setattr(reader.Reader, "_seek", astray)
    assert np.array_equal(load_clip(path, frames=2).frames, clip.frames)


def test_a_record_says_what_was_lost_and_is_none_where_nothing_was() -> None:
    assert not Damage(found=8)
    damage = Damage(True, 43, 57, 2, 1)
    assert damage
    assert str(damage) == (
        "the file is cut off, about 57 of its 100 frames are missing, "
        "sampled frames that do not decode, so that a neighbour stands in: 2, sampled frames with faults: 1"
    )
    assert damage.to_dict() == {"cut_off": True, "found": 43, "missing": 57, "stand_ins": 2, "flawed": 1}


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    path = changed(write(tmp_path / "whole.mkv", FRAMES), zeroed(0.01, 1.0))
    with pytest.raises(VideoError, match=r"whole\.mkv"):
        load_clip(path)
