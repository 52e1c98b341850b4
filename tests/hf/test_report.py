# SPDX-License-Identifier: Apache-2.0
"""Reports against counts made apart from the runtime, by hooks on the layers, the cache's tensors and plain loops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.names import CACHE, cache_of, places_new_videos
from hf.prompts import Clip, Prompt, image, prompt, shared_model
from hf.running import alone, answers, sequences
from qwen25vl.tiny import LAYERS

import tokenprune as tp

MERGE = tp.STMerge(keep_ratio=0.7)
MIXED = prompt([[40], [5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 3, image(2, 2), Clip(2, 2, 3), 7]])
KEYS = [
    "prompt_tokens",
    "visual_tokens",
    "stages",
    "layer_tokens",
    "visual_retained",
    "layer_averaged_retained",
    "kv_bytes",
    "kv_bytes_unpruned",
    "compression_ratio",
    "expanded",
]


@contextmanager
def lengths(model: Any) -> Iterator[list[int]]:
    """Length of what each layer computes in its first forward, padding of shorter rows included."""
    seen: list[int] = []

    def look(module: Any, args: Any, kwargs: Any) -> None:
        if len(seen) < LAYERS:
            seen.append(args[0].shape[1])

    handles = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in model.model.language_model.layers]
    yield seen
    for handle in handles:
        handle.remove()


def bytes_of(cache: Any) -> int:
    return sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))


def visual_columns(given: Prompt, row: int, modality: str | None = None) -> list[int]:
    return [
        placed.column + i
        for placed in given.clips[row]
        if modality in (None, placed.clip.modality)
        for i in range(placed.clip.count)
    ]


@pytest.mark.parametrize(
    ("operators", "left"),
    [
        ([], [(0, 18, 24)] * 5),
        ([MERGE], [(0, 13, 4 + 6 + 9)] * 5),
        ([tp.AttnPrune(layer=1, keep_ratio=0.5)], [(0, 18, 24)] * 2 + [(0, 9, 4 + 10)] * 3),
        (
            [MERGE, tp.AttnPrune(layer=0, keep=9), tp.AttnPrune(layer=2, keep=4)],
            [(0, 13, 19)] + [(0, 9, 4 + 9)] * 2 + [(0, 4, 4 + 4)] * 2,
        ),
        ([tp.AttnPrune(layer=3, keep=3, modalities=("image", "video"))], [(0, 18, 24)] * 4 + [(0, 3, 3)]),
    ],
    ids=["nothing", "merge", "cut", "merge and two cuts", "last layer, images too"],
)
def test_every_key(operators: list[Any], left: list[tuple[int, int, int]]) -> None:
    """``left``: visual tokens of each row that layers 0 to 3 compute, and those after the last."""
    model = shared_model()
    with tp.attach(model, tp.Pipeline(operators)) as session, lengths(model) as seen:
        cache = cache_of(model(**MIXED.inputs()))
    report = session.report
    found = report.to_dict()
    assert list(found) == KEYS
    assert json.loads(json.dumps(found)) == found

    prompt_tokens, visual = [int(row.sum()) for row in MIXED.mask], [0, 18, 24]
    text = [all_ - seen_ for all_, seen_ in zip(prompt_tokens, visual)]
    assert found["prompt_tokens"] == prompt_tokens
    assert found["visual_tokens"] == visual
    assert found["layer_tokens"] == [[t + v for t, v in zip(text, layer)] for layer in left[:LAYERS]]
    assert seen == [
        max(layer) if i else max(MIXED.length if not operators else 0, max(layer))
        for i, layer in enumerate(found["layer_tokens"])
    ]
    assert found["visual_retained"] == [1.0, left[-1][1] / 18, left[-1][2] / 24]
    averaged = [sum(layer[row] for layer in left[:LAYERS]) / (LAYERS * visual[row]) for row in (1, 2)]
    assert found["layer_averaged_retained"] == pytest.approx([1.0, *averaged])
    assert found["compression_ratio"] == pytest.approx([1 - kept for kept in found["visual_retained"]])
    assert found["kv_bytes"] == bytes_of(cache)
    assert found["kv_bytes_unpruned"] == bytes_of(cache) * MIXED.length // cache.layers[0].keys.shape[2]
    assert found["expanded"] == 1

    assert [stage["operator"] for stage in found["stages"]] == [type(operator).__name__ for operator in operators]
    before = visual
    for stage, operator in zip(found["stages"], operators):
        assert list(stage) == ["operator", "site", "layer", "visual_before", "visual_after", "seconds"]
        is_cut = isinstance(operator, tp.AttnPrune)
        assert stage["site"] == ("after_layer" if is_cut else "before_llm")
        assert stage["layer"] == (operator.layer if is_cut else None)
        assert stage["visual_before"] == before
        before = stage["visual_after"]
        assert before == list(left[operator.layer + 1 if is_cut else 0])
        assert 0 <= stage["seconds"] < 60


def test_kept_and_sources() -> None:
    """Text is all kept; each visual token is in one place of the sources, or was cut; anchors hold their groups."""
    model = shared_model()
    with tp.attach(model, tp.Pipeline([MERGE])) as session:
        answers(model, MIXED)
    merged = session.report
    with tp.attach(model, tp.Pipeline([MERGE, tp.AttnPrune(layer=1, keep=4)])) as session:
        answers(model, MIXED)
    cut = session.report
    for row in range(3):
        visual = visual_columns(MIXED, row)
        images = visual_columns(MIXED, row, "image")
        text = [c for c in range(MIXED.length) if MIXED.mask[row, c] and c not in visual]
        all_sources: dict[int, list[int]] = {}
        for report in (merged, cut):
            kept = report.kept[row].tolist()
            assert report.kept[row].dtype == torch.int64
            assert kept == sorted(set(kept))
            assert [c for c in kept if c not in visual] == text  # left padding is counted, and not kept
            kept_visual = [c for c in kept if c in visual]
            sources = [tokens.tolist() for tokens in report.sources[row]]
            assert len(sources) == len(kept_visual)
            for column, tokens in zip(kept_visual, sources):
                assert column in tokens
                assert tokens == sorted(set(tokens))
                assert tokens == [column] or column not in images
            flat = [c for tokens in sources for c in tokens]
            assert len(flat) == len(set(flat))
            assert set(flat) <= set(visual)
            if report is merged:
                assert sorted(flat) == visual
                all_sources = dict(zip(kept_visual, sources))
            else:
                assert all(all_sources[column] == tokens for column, tokens in zip(kept_visual, sources))
                assert set(images) <= set(kept_visual)


def test_kept_is_what_the_cache_stores() -> None:
    model = shared_model()
    with tp.attach(model, tp.Pipeline([MERGE, tp.AttnPrune(layer=1, keep=4)])) as session:
        out = sequences(model, MIXED.inputs(), return_dict_in_generate=True)
    layer = cache_of(out).layers[0]
    columns, valid = layer.slot_columns(), layer.slot_valid()
    for row in range(3):
        stored = columns[row][valid[row]]
        assert stored[stored < MIXED.length].tolist() == session.report.kept[row].tolist()


@pytest.mark.parametrize("passed", ["everything", "new tokens only"])
def test_a_second_turn_counts_columns_of_the_ids_as_passed(passed: str) -> None:
    if passed == "everything" and not places_new_videos():
        pytest.skip("this release counts the tokens of a new video as text: refused")
    model = shared_model()
    first = prompt([[5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 7]])
    with tp.attach(model, tp.Pipeline([MERGE, tp.AttnPrune(layer=1, keep=4)])) as session:
        out = sequences(model, first.inputs(), return_dict_in_generate=True)
        cache, earlier = cache_of(out), session.report
        past = cache.get_seq_length()  # the last answered token is not in it yet
        talk = first.answered(out.sequences[:, first.length :]).then([[3, Clip(2, 2, 2), 4], [2, Clip(1, 2, 3), 4]])
        new = talk.inputs(since=past)
        if passed == "everything":
            videos = model.model.get_video_features(new["pixel_values_videos"], new["video_grid_thw"])
            given = talk.inputs() | {"pixel_values_videos": None, "mm_encoder_outputs": {"video": videos}}
            sequences(model, given, **{CACHE: cache})
        else:
            model(**new, position_ids=talk.positions(model)[:, :, past:], **{CACHE: cache})
    report = session.report
    assert report is not earlier
    assert report.visual_tokens == [8, 6]
    assert report.prompt_tokens == [int(row.sum()) for row in talk.mask[:, past:]]
    since = 0 if passed == "everything" else past
    for row in range(2):
        kept = [column + since for column in report.kept[row].tolist()]
        visual = visual_columns(talk, row)
        new_text = [c for c in range(past, talk.length) if talk.mask[row, c] and c not in visual]
        old = earlier.kept[row].tolist() + list(range(first.length, past)) if passed == "everything" else []
        assert [c for c in kept if c < past] == old
        assert [c for c in kept if c >= past and c not in visual] == new_text
        assert len([c for c in kept if c >= past and c in visual]) == 4
        sources = [[column + since for column in tokens.tolist()] for tokens in report.sources[row]]
        assert all(column in tokens for column, tokens in zip([c for c in kept if c in visual], sources, strict=True))
        if passed == "everything":
            assert sources[:4] == [tokens.tolist() for tokens in earlier.sources[row]]


def test_without_a_cache_no_bytes() -> None:
    model = shared_model()
    with tp.attach(model, tp.Pipeline([MERGE])) as session:
        model(**MIXED.inputs(), use_cache=False)
    described = session.report.to_dict()
    assert described["kv_bytes"] is described["kv_bytes_unpruned"] is None
    assert json.dumps(described)


def test_reports_outlive_the_session() -> None:
    model = shared_model()
    with tp.attach(model, tp.Pipeline([MERGE])) as session:
        answers(model, alone(MIXED, 1))
        answers(model, alone(MIXED, 2))
    first, last = session.reports
    assert (first.visual_tokens, last.visual_tokens) == ([18], [24])
    assert session.report is last
