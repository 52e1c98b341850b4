# SPDX-License-Identifier: Apache-2.0
"""Beams, and conversations: a second turn with text or with a new video on the cache that the first one cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from families.layouts import Part
from families.tiny import CASES, Tiny, patches, prompt, timed_patches, tiny_model
from torch import Tensor
from transformers import DynamicCache

import tokenprune as tp
from tokenprune.hf.release import with_cache
from tokenprune.runtime.report import Report
from tokenprune.testing import VisualPrompt
from tokenprune.testing.masking import Removal, masked_logits
from tokenprune.testing.runs import PairsAt, require_close

KNOWN = [case for case in CASES if case.model_class is not None]
over_cases = pytest.mark.parametrize("case", KNOWN, ids=str)
MERGE, CUT = tp.STMerge(keep_ratio=0.6, min_tokens=2), tp.AttnPrune(layer=0.4, keep_ratio=0.5)


@over_cases
def test_beams_are_pruned_alike_alone_and_in_a_batch(case: Tiny) -> None:
    model = tiny_model(case)
    settings: dict[str, Any] = {
        "do_sample": False, "num_beams": 3, "num_return_sequences": 2, "min_new_tokens": 3, "max_new_tokens": 3,
        "suppress_tokens": list(range(200, 256)),
    }  # fmt: skip

    try:
        model.generate(**prompt(case, case.rows[:1], [0]).inputs, **settings)
    except (ValueError, RuntimeError) as error:
        pytest.skip(f"the library itself cannot expand this family's videos over beams: {error}")

    def answers(rows: list[int]) -> list[list[list[int]]]:
        given = prompt(case, [case.rows[row] for row in rows], rows)
        with tp.attach(model, tp.Pipeline([MERGE, CUT])) as session, torch.no_grad():
            new = model.generate(**given.inputs, **settings)[:, given.length :]
        assert len(session.reports) == 1
        return new.view(len(rows), 2, -1).tolist()

    assert answers([0, 1]) == [*answers([0]), *answers([1])]


def conversation(case: Tiny, first: list[Part], second: list[Part]) -> tuple[VisualPrompt, VisualPrompt]:
    """One row in one piece, and its first turn."""
    return prompt(case, [[*first, *second]], [5]), prompt(case, [first], [5])


def new_inputs(case: Tiny, model: Any, whole: VisualPrompt, earlier: VisualPrompt) -> dict[str, Any]:
    """What a forward takes of the second turn: the new ids, pixels and positions, but the mask over all."""
    start = earlier.length
    inputs: dict[str, Any] = {"input_ids": whole.input_ids[:, start:], "attention_mask": whole.inputs["attention_mask"]}
    if "moe_mm_token_type_ids" in whole.inputs:
        inputs["moe_mm_token_type_ids"] = whole.inputs["moe_mm_token_type_ids"][:, start:]
    for name, value in whole.inputs.items():
        old = earlier.inputs.get(name)
        if isinstance(value, Tensor) and value.shape != whole.input_ids.shape:
            dim = 1 if value.ndim == 5 and name == "pixel_values" else 0
            taken = 0 if old is None else old.shape[dim]
            if value.shape[dim] > taken:
                inputs[name] = value.narrow(dim, taken, value.shape[dim] - taken)
    if case.pixels is patches:
        grids = {name: whole.inputs[name] for name in ("video_grid_thw", "image_grid_thw") if name in whole.inputs}
        types = whole.inputs["mm_token_type_ids"]
        positions, _ = model.model.get_rope_index(whole.input_ids, types, attention_mask=None, **grids)
        inputs["position_ids"] = positions[:, :, start:]
        inputs.pop("mm_token_type_ids", None)
    if case.pixels is timed_patches:
        grids = [whole.inputs.get(name) for name in ("image_grid_thw", "video_grid_thw")]
        given = (whole.inputs["attention_mask"], False, None, whole.inputs["video_second_per_grid"])
        positions, _ = model.get_rope_index(whole.input_ids, *grids, *given)
        inputs["position_ids"] = positions[:, :, start:]
    return inputs


@over_cases
@pytest.mark.parametrize("turn", ["text", "video"])
@pytest.mark.parametrize(
    "operators", [[MERGE], [CUT], [MERGE, CUT], [PairsAt(0)]], ids=["merge", "cut", "both", "pairs"]
)
def test_a_second_turn_on_a_cut_cache(case: Tiny, turn: str, operators: list[Any]) -> None:
    """It equals the plain model over both turns, in which what has gone is masked in its layers and its time."""
    model, (one, two, _) = tiny_model(case), case.clips
    whole, first = conversation(case, [3, one, 25], [4, two, 6] if turn == "video" else [7])
    cache = DynamicCache(config=model.config.get_text_config())
    pipeline = tp.Pipeline(operators)
    reports: list[Report] = []
    with tp.attach(model, pipeline) as session, torch.no_grad():
        model(**with_cache(model, first.inputs, cache), use_cache=True)
        found = model(**with_cache(model, new_inputs(case, model, whole, first), cache), use_cache=True).logits
        reports += session.reports
    merging: list[Report | None] = [None] * len(reports)
    if MERGE in operators:
        with tp.attach(model, tp.Pipeline([MERGE])) as session, torch.no_grad():
            alone = DynamicCache(config=model.config.get_text_config())
            model(**with_cache(model, first.inputs, alone), use_cache=True)
            model(**with_cache(model, new_inputs(case, model, whole, first), alone), use_cache=True)
            merging = list(session.reports)
    assert len(reports) == (2 if turn == "video" else 1)
    text = model.get_submodule(case.family.placed(model).text)
    layer = 0 if PairsAt(0) in operators else int(0.4 * len(text.layers))
    removal = both_turns(whole, first, merging, reports, layer)
    nothing = whole.input_ids[:, :0]
    truth = masked_logits(model, text, whole, nothing, removal, case.family.carried, case.recurrent)
    require_close(found[:, -1], truth[:, -1], "logits of the second turn", 5e-4 if case.recurrent else 1e-4)


def both_turns(
    whole: VisualPrompt, first: VisualPrompt, merging: list[Report | None], reports: list[Report], layer: int
) -> Removal:
    """What has gone in either turn, in columns of the whole."""
    start, length = first.length, whole.length
    before, after = (torch.zeros(1, length, dtype=torch.bool) for _ in range(2))
    merged: dict[int, list[int]] = {}
    inside: dict[int, list[int]] = {}
    turns = [(first, 0)]
    if len(reports) == 2:
        late = [replace(span, columns=span.columns - start) for span in whole.spans[0] if int(span.columns[0]) >= start]
        turns.append((VisualPrompt({"input_ids": whole.input_ids[:, start:]}, [late]), start))
    for (turn, shift), early, report in zip(turns, merging, reports):
        one = Removal.of(turn, early, report, layer)
        stop = shift + turn.length
        before[:, shift:stop] |= one.before
        after[:, shift:stop] |= one.after
        merged.update(moved(one.merged[0], shift))
        inside.update(moved(one.inside[0] if one.inside else {}, shift))
    until = torch.where(torch.arange(length) < start, start, length)
    return Removal(before, after, layer, [merged], [inside], until)


def moved(groups: dict[int, list[int]], shift: int) -> dict[int, list[int]]:
    return {anchor + shift: [member + shift for member in group] for anchor, group in groups.items()}
