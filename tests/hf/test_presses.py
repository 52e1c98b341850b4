# SPDX-License-Identifier: Apache-2.0
"""Each press on a model: it keeps what its definition says of the plain model's attention and cache; later turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from hf.compare import forwards, generate
from hf.names import CACHE, cache_of, places_new_videos
from hf.pressing import ONE, RAGGED, Kept, Pressed, largest, masked, seen, visual
from hf.prompts import Clip, Prompt, prompt, shared_model
from hf.running import sequences

import tokenprune as tp
from tokenprune.errors import UnsupportedModeError

KEEP = 4
PRESSES = [
    tp.SnapKV(keep=KEEP, window=4, kernel=3),
    tp.KNorm(keep=KEEP),
    tp.TOVA(keep=KEEP),
    tp.InfiniPotV(keep=KEEP),
]


def text_after(given: Prompt, row: int) -> list[int]:
    last = max((p.column + p.clip.count for p in given.clips[row]), default=given.length)
    return list(range(last, given.length))


def videos(given: Prompt, row: int, since: int) -> list[Clip]:
    return [p.clip for p in given.clips[row] if p.clip.modality == "video" and p.column >= since]


def scores_of(
    press: Any, attention: Tensor, keys: Tensor, values: Tensor, given: Prompt, row: int, since: int
) -> Tensor:
    """``(kv_heads, N)`` by the press's definition, from one full-length layer: its map, keys and values."""
    columns, heads = [column for column in visual(given, row) if column >= since], len(keys)
    keys, values = keys[:, columns], values[:, columns]
    if isinstance(press, tp.KNorm):
        return -keys.norm(dim=2)
    if isinstance(press, tp.TOVA):
        return attention[:, -1, columns].mean(0).expand(heads, -1)
    if isinstance(press, tp.SnapKV):
        mean = attention[:, text_after(given, row)[-press.window :]][:, :, columns].mean(1)
        mean = mean.view(heads, -1, len(columns)).mean(1)
        parts = mean.split([clip.count for clip in videos(given, row, since)], dim=1)
        return torch.cat([smooth(part, press.kernel) for part in parts], dim=1)
    return infinipot(keys, values, videos(given, row, since))


def smooth(values: Tensor, kernel: int) -> Tensor:
    padded = torch.nn.functional.pad(values, (kernel // 2, kernel // 2))
    return padded.unfold(1, kernel, 1).mean(2)


def infinipot(keys: Tensor, values: Tensor, clips: list[Clip]) -> Tensor:
    """Clips of at most 3 frames, so that the last alone is recent; no frame fits into half of ``KEEP``."""
    likeness, start = torch.zeros(keys.shape[:2]), 0
    for clip in clips:
        part = keys[:, start : start + clip.count].unflatten(1, (clip.frames, -1))
        likeness[:, start : start + clip.count] = torch.cosine_similarity(part, part[:, -1:], dim=3).flatten(1)
        start += clip.count
    norms = values.norm(dim=2)
    for head, alike in enumerate(likeness):
        norms[head, largest(-alike, KEEP // 2)] += 1000
    return norms


def kept_by(press: Any, given: Prompt, earlier: Sequence[Pressed] = (), since: int = 0) -> Kept:
    """What each layer, row and head would keep of the videos from column ``since`` on, after earlier presses."""
    out = seen(shared_model("eager"), given, earlier)
    layers: Kept = []
    for layer, attention in zip(cache_of(out).layers, out.attentions):
        rows: list[list[set[int]]] = []
        for row in range(len(given.ids)):
            columns = [column for column in visual(given, row) if column >= since]
            heads: list[set[int]] = [set() for _ in layer.keys[row]]
            if columns:
                scores = scores_of(press, attention[row], layer.keys[row], layer.values[row], given, row, since)
                heads = [{columns[i] for i in largest(head, press.keep)} for head in scores]
            rows.append(heads)
        layers.append(rows)
    return layers


@pytest.mark.parametrize("given", [ONE, RAGGED], ids=["one row", "ragged"])
@pytest.mark.parametrize("press", PRESSES, ids=repr)
def test_later_queries_see_what_it_keeps(press: Any, given: Prompt) -> None:
    kept = kept_by(press, given)
    with tp.attach(shared_model(), tp.Pipeline([press])) as session:
        run = generate(shared_model(), given)
    new = run.sequences[:, given.length :]
    truth = masked(shared_model("eager"), given, new, kept)
    for step, logits in enumerate(run.logits):
        assert torch.allclose(logits, truth[:, given.length - 1 + step], atol=1e-4), step
    for row in range(len(given.ids)):
        union = set().union(*(head for layer in kept for head in layer[row]))
        assert set(session.report.kept[row].tolist()) & set(visual(given, row)) == union
    for layer, rows in zip(cache_of(run).layers, kept):
        for row, heads in enumerate(rows):
            valid = layer.slot_valid()
            held = layer.slot_columns_by_head()[row]
            held = held if valid is None else held[:, valid[row]]
            for head, columns in enumerate(held.expand(len(heads), -1)):
                assert set(columns.tolist()) & set(visual(given, row)) == heads[head]


def test_heads_and_layers_keep_different_tokens() -> None:
    """What is tested above would pass with one choice for all; here it is not one."""
    for press in PRESSES:
        layers = [rows[0] for rows in kept_by(press, ONE)]
        assert layers[0] != layers[1]
        assert any(a != b for a, b in layers) == (not isinstance(press, tp.TOVA))


@pytest.mark.parametrize("press", PRESSES, ids=repr)
def test_a_later_question_sees_what_it_keeps(press: Any) -> None:
    model, kept = shared_model(), kept_by(press, ONE)
    with tp.attach(model, tp.Pipeline([press])):
        first = generate(model, ONE)
        talk = ONE.answered(first.sequences[:, ONE.length :]).then([[5]])
        asked = talk.length
        talk, steps = forwards(model, talk, cache_of(first))
    truth = masked(shared_model("eager"), ONE, talk.ids[:, ONE.length :], kept)
    for step, logits in enumerate(steps):
        assert torch.allclose(logits, truth[:, asked - 1 + step], atol=1e-4), step


@pytest.mark.parametrize("press", PRESSES, ids=repr)
def test_a_later_video_is_pressed_in_its_turn(press: Any) -> None:
    """Its prefill sees what is left of the first video, and what follows what is left of both."""
    model, first = shared_model(), prompt([[5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 3), 7]])
    with tp.attach(model, tp.Pipeline([press])):
        out = generate(model, first)
        talk = first.answered(out.sequences[:, first.length :]).then([[3, Clip(2, 2, 3), 4], [2, Clip(3, 2, 2), 5]])
        whole, steps = forwards(model, talk, cache_of(out))
    columns = [visual(first, row) for row in range(2)]
    one = Pressed(first.length, columns, kept_by(press, first))
    since = first.length
    later = [[column for column in visual(talk, row) if column >= since] for row in range(2)]
    two = Pressed(talk.length, later, kept_by(press, talk, [one], since))
    truth = seen(shared_model("eager"), whole, [one, two]).logits
    for step, logits in enumerate(steps):
        assert torch.allclose(logits, truth[:, talk.length - 1 + step], atol=1e-4), step


@pytest.mark.parametrize("press", PRESSES, ids=repr)
def test_a_later_turn_reports_what_any_layer_or_head_still_holds(press: Any) -> None:
    first = prompt([[5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 7]])
    model = shared_model()
    with tp.attach(model, tp.Pipeline([press])) as session:
        out = sequences(model, first.inputs(), return_dict_in_generate=True)
        cache, earlier = cache_of(out), session.report
        past = cache.get_seq_length()
        talk = first.answered(out.sequences[:, first.length :]).then([[3, Clip(2, 2, 2), 4], [2, Clip(1, 2, 3), 4]])
        model(**talk.inputs(since=past), position_ids=talk.positions(model)[:, :, past:], **{CACHE: cache})
    later = session.report
    assert later.to_dict()["kept_per_head"] == [KEEP, KEEP]
    held: list[set[int]] = [set(), set()]
    for layer in cache.layers:
        valid = layer.slot_valid()
        for row, columns in enumerate(layer.slot_columns_by_head()):
            there = columns if valid is None else columns[:, valid[row]]
            held[row] |= set(there.flatten().tolist())
    for row in range(2):
        assert [column + past for column in later.kept[row].tolist()] == sorted(c for c in held[row] if c >= past)
        mine = set(visual(talk, row)) & set(range(past))
        assert held[row] & mine == set(earlier.kept[row].tolist()) & mine
        assert len(held[row] & mine) > KEEP


@pytest.mark.skipif(not places_new_videos(), reason="this release counts the tokens of a new video as text: refused")
def test_the_whole_conversation_is_reported_where_it_is_passed() -> None:
    press, first = tp.KNorm(keep=KEEP), prompt([[5, Clip(3, 2, 3), 6]])
    model = shared_model()
    with tp.attach(model, tp.Pipeline([press])) as session:
        out = sequences(model, first.inputs(), return_dict_in_generate=True)
        earlier = session.report
        talk = first.answered(out.sequences[:, first.length :]).then([[3, Clip(2, 2, 2), 4]])
        new = talk.inputs(since=cache_of(out).get_seq_length())
        videos = model.model.get_video_features(new["pixel_values_videos"], new["video_grid_thw"])
        given = talk.inputs() | {"pixel_values_videos": None, "mm_encoder_outputs": {"video": videos}}
        sequences(model, given, **{CACHE: cache_of(out)})
    later = session.report
    kept = later.kept[0].tolist()
    old = [c for c in kept if c in visual(first, 0)]
    assert old == [c for c in earlier.kept[0].tolist() if c in visual(first, 0)]
    assert len(old) > KEEP
    assert [s.tolist() for s in later.sources[0]] == [[c] for c in kept if c in visual(talk, 0)]


def test_a_later_mask_may_hide_what_all_heads_hold_at_one_place() -> None:
    """Text before the video stands at one slot of all heads, text between two videos does not."""
    model, press = shared_model(), tp.KNorm(keep=KEEP)
    given = prompt([[5, Clip(2, 2, 2), 3, Clip(2, 2, 3), 6]])
    between = given.clips[0][0].column + 8 + 1
    with tp.attach(model, tp.Pipeline([press])):
        first = generate(model, given)
        talk = given.answered(first.sequences[:, given.length :]).then([[5]])
        with pytest.raises(UnsupportedModeError, match="at different places"):
            forwards(model, replace(talk, mask=talk.mask.index_fill(1, torch.tensor([between]), 0)), cache_of(first))
        hiding = replace(talk, mask=talk.mask.index_fill(1, torch.tensor([2]), 0))
        _, steps = forwards(model, hiding, cache_of(first))
    assert len(steps) == 3
