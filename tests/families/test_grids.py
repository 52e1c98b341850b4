# SPDX-License-Identifier: Apache-2.0
"""Grid rules: which runs of placeholders are one video, and what cannot be told is refused."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from families.layouts import CLOSE, END, IDS, IMAGE, MARKED, OPEN, START, VIDEO
from torch import Tensor

from tokenprune.adapter import Prompt, VisualSpan
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.families.grids import GridRule
from tokenprune.hf.families.grids.frames import BoundedFrames, TimestampedFrames
from tokenprune.hf.families.grids.mrope import MropeRuns
from tokenprune.hf.families.grids.squares import CountedRuns, SquareRuns, Squares

CONFIG = SimpleNamespace(**MARKED, video_start_token_id=OPEN, video_end_token_id=CLOSE)
BOTH = {"video": VIDEO, "image": IMAGE}
IMAGES = {"image": IMAGE}
Piece = int | tuple[int, int, int, int]
"""A text id, or placeholders of an id with their T, H and W."""


def laid_out(pieces: Sequence[Piece]) -> Prompt:
    """One row with M-RoPE positions, as the library counts them."""
    ids: list[int] = []
    positions: list[Tensor] = []
    at = 0
    for piece in pieces:
        if isinstance(piece, int):
            ids.append(piece)
            positions.append(torch.full((3, 1), at))
            at += 1
            continue
        placeholder, frames, height, width = piece
        ids += [placeholder] * (frames * height * width)
        positions.append(torch.cartesian_prod(*(torch.arange(n) for n in piece[1:])).T + at)
        at += max(height, width)
    row = torch.tensor([ids])
    return Prompt(row, torch.cat(positions, dim=1).unsqueeze(1), torch.ones_like(row, dtype=torch.bool))


def counted(pieces: Sequence[int | tuple[int, int]]) -> Prompt:
    """One row without positions: text ids, and runs of so many placeholders."""
    ids = [i for piece in pieces for i in ([piece] if isinstance(piece, int) else [piece[0]] * piece[1])]
    row = torch.tensor([ids])
    return Prompt(row, None, torch.ones_like(row, dtype=torch.bool))


def found(rule: GridRule, prompt: Prompt, ids: dict[str, int]) -> list[tuple[str, tuple[int, int, int], list[int]]]:
    spans: list[VisualSpan] = rule.spans(prompt, ids, CONFIG)[0]
    return [(span.modality, span.grid, span.columns.tolist()) for span in spans]


def grids(rule: GridRule, prompt: Prompt, ids: dict[str, int] = BOTH) -> list[tuple[str, tuple[int, int, int]]]:
    return [(modality, grid) for modality, grid, _ in found(rule, prompt, ids)]


def frame(*time: int, height: int = 1, width: int = 2, placeholder: int = VIDEO) -> list[Piece]:
    return [*time, START, (placeholder, 1, height, width), END]


def flat(times: Sequence[Sequence[int]], height: int = 1, width: int = 2) -> list[Piece]:
    return [piece for time in times for piece in frame(*time, height=height, width=width)]


def nested(times: Sequence[Sequence[int]], height: int = 1, width: int = 2) -> list[Piece]:
    return [START, *flat(times, height, width), END]


ONE, TWO = [(7, 8), (7, 9)], [(7, 8), (7, 9), (7, 1, 1)]
"""Timestamps of two and of three frames; the last one has a digit more."""
T2, T3 = ("video", (2, 1, 2)), ("video", (3, 1, 2))


def test_frames_between_timestamps_are_one_video_and_the_timestamps_are_text() -> None:
    prompt = laid_out([5, *nested(ONE), 6])
    assert found(TimestampedFrames(), prompt, BOTH) == [("video", (2, 1, 2), [5, 6, 11, 12])]
    assert prompt.input_ids[0, 7:11].tolist() == [END, 7, 9, START]


@pytest.mark.parametrize("form", [flat, nested])
@pytest.mark.parametrize("between", [[], [1, 2, 3, 4, 5, 6], list(range(50, 63))])
def test_videos_that_follow_each_other_are_told_apart(form: object, between: list[Piece]) -> None:
    for times in ([ONE, TWO], [TWO, ONE], [ONE, ONE], [TWO, TWO, ONE]):
        pieces: list[Piece] = []
        for number, each in enumerate(times):
            pieces += [*(between if number else []), *form(each)]  # type: ignore[operator]
        assert grids(TimestampedFrames(), laid_out([5, *pieces, 6])) == [T2 if each is ONE else T3 for each in times]


def test_text_between_tells_videos_of_one_frame_apart() -> None:
    pieces = [5, *flat(ONE[:1]), *range(50, 63), *flat(ONE[:1]), 6]
    assert grids(TimestampedFrames(), laid_out(pieces)) == [("video", (1, 1, 2))] * 2


@pytest.mark.parametrize("form", [flat, nested])
def test_a_video_of_another_size_or_an_image_begins_anew(form: object) -> None:
    other = form([(7, 3)], height=2)  # type: ignore[operator]
    image = frame(placeholder=IMAGE)
    pieces = [*form(ONE), *other, *image, *form(ONE)]  # type: ignore[operator]
    wanted = [T2, ("video", (1, 2, 2)), ("image", (1, 1, 2)), T2]
    assert grids(TimestampedFrames(), laid_out(pieces)) == wanted


def test_positions_that_are_not_there_or_form_no_grid_are_refused() -> None:
    prompt = laid_out([5, *nested(ONE), 6])
    with pytest.raises(UnsupportedModeError, match="no M-RoPE positions"):
        TimestampedFrames().spans(Prompt(prompt.input_ids, None, prompt.valid), BOTH, CONFIG)
    shuffled = prompt.position_ids.flip(-1)  # type: ignore[union-attr]
    with pytest.raises(UnsupportedModeError, match="do not stand on a"):
        MropeRuns().spans(Prompt(prompt.input_ids, shuffled, prompt.valid), BOTH, CONFIG)


def test_a_run_with_positions_is_a_video_or_an_image() -> None:
    prompt = laid_out([5, START, (VIDEO, 2, 3, 2), END, START, (IMAGE, 1, 2, 4), END, 6])
    assert grids(MropeRuns(), prompt) == [("video", (2, 3, 2)), ("image", (1, 2, 4))]


def test_what_stands_between_a_videos_ends_is_one_video() -> None:
    video = [OPEN, *frame(placeholder=IMAGE), 7, *frame(placeholder=IMAGE), 8, CLOSE]
    one = [OPEN, *frame(placeholder=IMAGE), CLOSE]
    prompt = laid_out([5, *video, *video, *frame(placeholder=IMAGE), 1, *frame(placeholder=IMAGE), *one, 6])
    wanted = [T2, T2, ("image", (1, 1, 2)), ("image", (1, 1, 2)), ("video", (1, 1, 2))]
    assert grids(BoundedFrames(), prompt, IMAGES) == wanted
    odd = [OPEN, *frame(placeholder=IMAGE), *frame(placeholder=IMAGE, height=2), CLOSE]
    with pytest.raises(UnsupportedModeError, match="the first frame of the video on"):
        grids(BoundedFrames(), laid_out(odd), IMAGES)


def test_squares_of_a_run_and_its_tail() -> None:
    rule = Squares(video=lambda config: 2, image=lambda config: 3, tail=1)
    prompt = counted([5, (VIDEO, 9), 6, (IMAGE, 10), 7])
    assert found(rule, prompt, BOTH) == [
        ("video", (2, 2, 2), list(range(1, 9))),
        ("image", (1, 3, 3), list(range(11, 20))),
    ]
    for wrong, message in (([(VIDEO, 8)], "not frames of 2x2 and 1 more"), ([(IMAGE, 19)], "not one image of 3x3")):
        with pytest.raises(UnsupportedModeError, match=message):
            grids(rule, counted([5, *wrong]))


def test_frames_that_are_image_runs_are_told_by_the_text_between() -> None:
    rule = SquareRuns(lambda config: 2, shortest=3, longest=5)
    video = [(IMAGE, 4), 1, 2, 3, (IMAGE, 4)]
    assert grids(rule, counted([5, *video, 6]), IMAGES) == [("video", (2, 2, 2))]
    apart = [*video, 1, 2, *video, *range(6), (IMAGE, 4)]
    wanted = [("video", (2, 2, 2)), ("video", (2, 2, 2)), ("image", (1, 2, 2))]
    assert grids(rule, counted(apart), IMAGES) == wanted
    tiles = [(IMAGE, 4), 1, 2, 3, (IMAGE, 12)]
    assert grids(rule, counted(tiles), IMAGES) == [("image", (1, 2, 2)), ("image", (3, 2, 2))]
    with pytest.raises(UnsupportedModeError, match="are no squares of 2x2"):
        grids(rule, counted([(IMAGE, 6)]), IMAGES)


def test_frames_of_native_resolution_are_strips() -> None:
    rule = CountedRuns(longest=3)
    prompt = counted([5, (VIDEO, 6), 1, 2, (VIDEO, 6), *range(4), (VIDEO, 4), 1, (IMAGE, 2)])
    assert grids(rule, prompt) == [("video", (2, 1, 6)), ("video", (1, 1, 4)), ("image", (1, 1, 2))]
    with pytest.raises(UnsupportedModeError, match="another size than the 6 of the video's first"):
        grids(rule, counted([(VIDEO, 6), 1, (VIDEO, 4)]))


@pytest.mark.parametrize(
    "rule", [MropeRuns(), TimestampedFrames(), BoundedFrames(), Squares(lambda c: 1, lambda c: 1), CountedRuns(3)]
)
def test_text_alone_holds_nothing(rule: GridRule) -> None:
    assert rule.spans(counted([1, 2, 3]), {"video": IDS["video_token_id"]}, CONFIG) == [[]]
