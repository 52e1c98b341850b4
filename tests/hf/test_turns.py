# SPDX-License-Identifier: Apache-2.0
"""Conversations on one pruned cache: text turns, and further videos that are pruned in their turn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.compare import agrees, forwards, generate, reports, stores
from hf.names import CACHE, cache_of, places_new_videos
from hf.oracle import Cut, clip_features, oracle
from hf.prompts import Clip, image, prompt, shared_model

import tokenprune as tp
from tokenprune.errors import UnsupportedModeError

FIRST: dict[str, list[Any]] = {
    "one row": [[3, Clip(3, 2, 3), 4]],
    "padded": [[3, Clip(4, 2, 2), 4], [6, Clip(6, 2, 3), 7], [30]],
}
TEXT_TURN: dict[str, list[Any]] = {"one row": [[5]], "padded": [[5], [2], [4]]}
VIDEO_TURN: dict[str, list[Any]] = {
    "one row": [[2, Clip(3, 2, 2), 3]],
    "padded": [[2, Clip(3, 2, 2), 1, image(2, 2), 3], [25], [1, Clip(2, 2, 2), 2, Clip(2, 2, 3), 4]],
}
PIXELS = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "mm_token_type_ids")
"""What a turn of text leaves out: its visual tokens are in the cache already."""
ST_MERGE = tp.STMerge(tau=0.6, cluster_ratio=0.5, temporal_segment_ratio=0.5, min_tokens=1)
PIPELINES: dict[str, tuple[list[Any], list[Cut], Any]] = {
    "stage 2": ([tp.AttnPrune(layer=1, keep_ratio=0.4)], [Cut(1, 0.4)], None),
    "stage 2 at the end": ([tp.AttnPrune(layer=3, keep_ratio=0.4)], [Cut(3, 0.4)], None),
    "stage 1": ([ST_MERGE], [], ST_MERGE.plan),
    "both": ([ST_MERGE, tp.AttnPrune(layer=0, keep_ratio=0.4)], [Cut(0, 0.4)], ST_MERGE.plan),
}
over_pipelines = pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
over_rows = pytest.mark.parametrize("rows", FIRST)


@over_pipelines
@pytest.mark.parametrize(
    ("rows", "by"),
    [
        *((rows, by) for rows in FIRST for by in ("generate", "forward")),
        ("one row", "forward without mask"),
    ],
)
def test_text_turn(rows: str, pipeline: tuple[list[Any], list[Cut], Any], by: str) -> None:
    operators, cuts, merge = pipeline
    model, given = shared_model(), prompt(FIRST[rows])
    with tp.attach(model, tp.Pipeline(operators)) as session:
        first = generate(model, given)
        cache = cache_of(first)
        talk = given.answered(first.sequences[:, given.length :]).then(TEXT_TURN[rows])
        asked = talk.length
        if by == "generate":
            second = generate(model, talk, **{CACHE: cache}, **dict.fromkeys(PIXELS))
            whole, steps = talk.answered(second.sequences[:, asked:]), second.logits
        else:
            whole, steps = forwards(model, talk, cache, masked=by == "forward")
    assert len(session.reports) == 1  # a turn of text leaves the report
    truth = oracle(model, whole, cuts, merge)
    agrees(first.logits, truth, given.length - 1)
    agrees(steps, truth, asked - 1)
    before = max(len(row.kept(given.length)) for row in truth.rows)
    stores(cache, whole.length - 1, before + whole.length - 1 - given.length)


@over_pipelines
@over_rows
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_video_turn_by_forward(rows: str, pipeline: tuple[list[Any], list[Cut], Any], attention: str) -> None:
    operators, cuts, merge = pipeline
    model, given = shared_model(attention), prompt(FIRST[rows])
    with tp.attach(model, tp.Pipeline(operators)) as session:
        first = generate(model, given)
        cache = cache_of(first)
        talk = given.answered(first.sequences[:, given.length :]).then(VIDEO_TURN[rows])
        asked, before = talk.length, cache.get_seq_length()
        whole, steps = forwards(model, talk, cache)
    assert len(session.reports) == 2
    truth = oracle(model, whole, cuts, merge)
    agrees(steps, truth, asked - 1)
    kept = [row.kept(asked) for row in truth.rows]
    shown = [[column - before for column in row if column >= before] for row in kept]
    assert [row.tolist() for row in session.report.kept] == shown  # columns of the ids as passed: the new ones
    stores(cache, whole.length - 1, max(len(row) for row in kept) + 2)


def test_video_turn_without_positions_is_refused() -> None:
    if places_new_videos():
        pytest.skip("this release gives a new video its positions")
    model, given = shared_model(), prompt(FIRST["one row"])
    with tp.attach(model, tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=0.4)])):
        first = generate(model, given)
        talk = given.answered(first.sequences[:, given.length :]).then(VIDEO_TURN["one row"])
        new = {name: talk.inputs(since=given.length)[name] for name in ("pixel_values_videos", "video_grid_thw")}
        with pytest.raises(UnsupportedModeError, match="positions"):
            generate(model, talk, **{CACHE: cache_of(first)}, **new)


@over_pipelines
@over_rows
def test_video_turn_by_generate(rows: str, pipeline: tuple[list[Any], list[Cut], Any]) -> None:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    if not places_new_videos():
        pytest.skip("this release counts the tokens of a new video as text: refused")
    operators, cuts, merge = pipeline
    model, given = shared_model(), prompt(FIRST[rows])
    with tp.attach(model, tp.Pipeline(operators)) as session:
        first = generate(model, given)
        talk = given.answered(first.sequences[:, given.length :]).then(VIDEO_TURN[rows])
        encoded = {
            modality: BaseModelOutputWithPooling(
                pooler_output=tuple(clip_features(model, placed) for placed in talk.placed(modality, given.length))
            )
            for modality in ("video", "image")
            if talk.placed(modality, given.length)
        }
        pixels = {"pixel_values": None, "pixel_values_videos": None, "mm_encoder_outputs": encoded}
        second = generate(model, talk, **{CACHE: cache_of(first)}, **pixels)
    truth = oracle(model, talk.answered(second.sequences[:, talk.length :]), cuts, merge)
    agrees(second.logits, truth, talk.length - 1)
    reports(session, truth, talk.length, cache_of(second))


@over_pipelines
def test_text_first_then_video(pipeline: tuple[list[Any], list[Cut], Any]) -> None:
    """The cache of a turn without visual tokens can be cut in a later one."""
    operators, cuts, merge = pipeline
    model, given = shared_model(), prompt([[5], [9]])
    with tp.attach(model, tp.Pipeline(operators)) as session:
        first = generate(model, given)
        assert session.report is None
        talk = given.answered(first.sequences[:, given.length :]).then([[2, Clip(3, 2, 2), 3], [2, Clip(4, 2, 2), 1]])
        whole, steps = forwards(model, talk, cache_of(first))
    agrees(steps, oracle(model, whole, cuts, merge), talk.length - 1)


@over_rows
def test_three_turns(rows: str) -> None:
    """Video, text, video, text: what an earlier turn has lost stays lost, and is not cut again."""
    model, given = shared_model(), prompt(FIRST[rows])
    cuts, selector = [Cut(1, 0.4)], tp.AttnPrune(layer=1, keep_ratio=0.4)
    with tp.attach(model, tp.Pipeline([selector])):
        first = generate(model, given)
        talk = given.answered(first.sequences[:, given.length :])
        for turn, parts in enumerate([TEXT_TURN, VIDEO_TURN, TEXT_TURN]):
            talk = talk.then(parts[rows], seed=turn + 2)
            asked = talk.length
            talk, steps = forwards(model, talk, cache_of(first))
            agrees(steps, oracle(model, talk, cuts), asked - 1)


@pytest.mark.parametrize(
    ("move", "rows"),
    [
        (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 1])), [2, 0, 1]),
        (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
        (lambda cache: cache.batch_select_indices(torch.tensor([0, 2])), [0, 2]),
    ],
    ids=["reorder", "repeat", "select"],
)
def test_rows_of_the_cache_are_moved(move: Any, rows: list[int]) -> None:
    """The padding of each row goes with it, through a turn of text and one with a video."""
    model, given = shared_model(), prompt(FIRST["padded"])
    cuts, selector = [Cut(1, 0.4)], tp.AttnPrune(layer=1, keep_ratio=0.4)
    with tp.attach(model, tp.Pipeline([selector])):
        first = generate(model, given)
        move(cache_of(first))
        talk = given.answered(first.sequences[:, given.length :]).taken(rows)
        for turn, parts in enumerate([TEXT_TURN["padded"], VIDEO_TURN["padded"]]):
            talk = talk.then([parts[row] for row in rows], seed=turn + 2)
            asked = talk.length
            talk, steps = forwards(model, talk, cache_of(first))
            agrees(steps, oracle(model, talk, cuts), asked - 1)


@over_pipelines
def test_answers_are_cropped(pipeline: tuple[list[Any], list[Cut], Any]) -> None:
    """Another question to the same pruned videos: the cache is cropped to the first prompt, or copied there."""
    operators, cuts, merge = pipeline
    model, given = shared_model(), prompt(FIRST["padded"])
    with tp.attach(model, tp.Pipeline(operators)):
        cache = cache_of(generate(model, given))
        cache.crop(-3)
        assert cache.get_seq_length() == given.length
        copied = copy.deepcopy(cache)
        for turn, used in enumerate([cache, copied]):
            asked = given.then(TEXT_TURN["padded"], seed=turn + 5)
            whole, steps = forwards(model, asked, used)
            agrees(steps, oracle(model, whole, cuts, merge), asked.length - 1)
