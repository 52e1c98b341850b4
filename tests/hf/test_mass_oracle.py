# SPDX-License-Identifier: Apache-2.0
"""The oracle of attention mass is itself held: against masses by hand, the older oracle and the library's layers."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from hf.compare import TOLERANCE
from hf.mass_cases import (
    BOTH,
    CASES,
    FIRST,
    LAYER_CASES,
    MERGE,
    MORE_CASES,
    MORE_LAYER_CASES,
    ST_MERGE,
    TEXT_TURN,
    VIDEO_TURN,
    Case,
    halved,
    joined,
)
from hf.mass_oracle import (
    PLAIN,
    Grouped,
    MassRow,
    Turn,
    hand_over,
    mass_oracle,
    mass_row,
    nearest,
    step,
    without_bias,
)
from hf.oracle import Cut, oracle
from hf.prompts import Clip, Prompt, prompt, shared_model

EVERY: dict[str, Case] = CASES | LAYER_CASES | MORE_CASES | MORE_LAYER_CASES


def talk(rows: str) -> Prompt:
    """A video, an answer, a question, an answer, and a second video."""
    new = torch.arange(2).expand(len(FIRST[rows]), -1)
    asked = prompt(FIRST[rows]).answered(new + 9).then(TEXT_TURN[rows], seed=3)
    return asked.answered(new + 20).then(VIDEO_TURN[rows], seed=4)


@pytest.mark.parametrize("rows", FIRST)
@pytest.mark.parametrize("name", ["merge", "select", "both"])
def test_without_mass_it_is_the_older_oracle(name: str, rows: str) -> None:
    model, whole = shared_model(), talk(rows)
    cuts = {"merge": [], "select": [Cut(1, 0.4)], "both": [Cut(1, 0.4)]}[name]
    older = oracle(model, whole, cuts, ST_MERGE.plan if name != "select" else None)
    turn = EVERY[name][1]
    found = mass_oracle(model, whole, Turn(turn.mergers, turn.cuts, mass=False))
    for row, (one, other) in enumerate(zip(found.rows, older.rows)):
        assert one.kept(whole.length) == other.kept(whole.length)
        assert one.kept_sources(whole.length) == other.kept_sources(whole.length)
        columns = other.kept(whole.length)
        assert float((found.at(row, columns) - older.at(row, columns)).abs().max()) < 1e-9


@pytest.mark.parametrize("rows", FIRST)
@pytest.mark.parametrize("name", EVERY)
def test_mass_is_conserved_and_seen(name: str, rows: str) -> None:
    model, whole = shared_model(), talk(rows)
    truth = mass_oracle(model, whole, EVERY[name][1])
    other, first, last = without_bias(model, truth), whole.prefills[0][1], [whole.length - 1]
    for number, row in enumerate(truth.rows):
        assert isinstance(row, MassRow)
        for stop in (first, whole.length):
            visual = sum(placed.clip.count for placed in whole.clips[number] if placed.column < stop)
            text = sum(1 for c, kind in zip(row.columns, row.kind) if c < stop and kind == "text")
            assert sum(row.held(stop)) == visual + text
        if any(placed.column < first for placed in whole.clips[number]):
            assert float((truth.at(number, last) - other.at(number, last)).abs().max()) > 0.01


def by_hand() -> MassRow:
    """Two texts, a video of four at places 2 to 5 with features on a line, two texts; the last is the answer."""
    embeds = torch.zeros(8, 1).double()
    embeds[2:6, 0] = torch.tensor([0.0, 4.0, 6.0, 7.0])
    kind = ["text"] * 2 + ["video"] * 4 + ["text"] * 2
    row = MassRow(embeds, torch.zeros(3, 8), list(range(8)), kind, [[c] for c in range(8)])
    for place in range(2, 6):
        row.video[place], row.stop[place], row.mass[place] = 2, 7, [(-1, 1.0)]
    return row


def test_masses_and_bias_by_hand() -> None:
    """Tokens 0 and 1 are merged after layer 0, then 3 is dropped after layer 1 and leaves its mass to 2."""
    row = by_hand()
    hand_over(row, 0, step(row, 0, [2, 3, 4, 5], [0, 0, 2, 3]))
    hand_over(row, 1, step(row, 1, [2, 4, 5], [0, 1, None]))
    assert row.kept(8) == [0, 1, 2, 4, 6, 7]
    assert row.held(8) == [1, 1, 2, 2, 1, 1]
    assert row.kept_sources(8) == [[2, 3], [4]]
    two = math.log(2)
    prefill = {0: [0.0, 0.0], 1: [two, 0.0], 2: [two, two], 3: [two, two]}
    for layer, wanted in prefill.items():
        bias = row.bias(layer)
        assert bias[6, [2, 4]].tolist() == wanted
        assert bias[7, [2, 4]].tolist() == [two, two]  # the answer sees what stands at the end, in every layer
        assert not bias[:, [0, 1, 6, 7]].any()
    hidden = torch.arange(8.0).double().unsqueeze(1)
    assert row.after(0, hidden).flatten().tolist() == [0, 1, 2.5, 3, 4, 5, 6, 7]
    assert torch.equal(row.after(1, hidden), hidden)


def test_a_dropped_token_goes_to_its_own_video_first() -> None:
    row = by_hand()
    row.video[5] = 5  # a video of its own
    row.removed = {4: (1, 7)}
    assert nearest(row, 4) == 3  # though 5 is nearer
    row.removed = {4: (1, 7), 3: (1, 7), 2: (1, 7)}
    assert nearest(row, 4) == 5  # nothing is left of its own
    row = by_hand()
    row.embeds[2:6, 0] = torch.tensor([5.0, 6.0, 7.0, 9.0])
    row.removed = {3: (1, 7)}
    assert nearest(row, 3) == 2  # as near as 4


def test_rules_of_the_operators() -> None:
    assert halved([6, 5]) == [0, 0, 2, 2, None, None, 6, 6, None, None, 10]
    assert joined([3, 2]) == [0, 0, 2, 2, 4]


def by_library(model: Any, row: MassRow, masks: list[Tensor], mixes: dict[int, Tensor]) -> Tensor:
    """``(n, vocabulary)``: the library's decoder in fp64, each layer given its own float mask over the full length.

    Args:
        model: on eager attention, in fp64.
        row: its embeddings and positions are read, nothing else.
        masks: per layer ``(n, n)`` added to the logits.
        mixes: layer -> ``(n, n)`` with which its output is multiplied.
    """

    def masked(index: int) -> Any:
        def give(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, kwargs | {"attention_mask": masks[index][None, None]}

        return give

    def mixed(index: int) -> Any:
        def mix(module: Any, args: Any, output: Any) -> Any:
            return mixes[index] @ output if isinstance(output, Tensor) else (mixes[index] @ output[0], *output[1:])

        return mix

    layers, handles = model.model.language_model.layers, []
    for index, layer in enumerate(layers):
        handles.append(layer.self_attn.register_forward_pre_hook(masked(index), with_kwargs=True))
        if index in mixes:
            handles.append(layer.register_forward_hook(mixed(index)))
    try:
        with torch.no_grad():
            hidden = model.model.language_model(
                inputs_embeds=row.embeds.unsqueeze(0), position_ids=row.positions.unsqueeze(1), use_cache=False
            ).last_hidden_state
            return model.lm_head(hidden)[0]
    finally:
        for handle in handles:
            handle.remove()


def test_the_librarys_layers_with_masks_by_hand() -> None:
    """Merged at layer 1 in three groups, then the middle one dropped at layer 2; an answer of three follows."""
    model = copy.deepcopy(shared_model("eager", user="fp64")).double()
    whole = prompt([[2, Clip(2, 1, 3), 3]]).answered(torch.tensor([[7, 8, 9]]))
    cuts = (Grouped(1, lambda counts: [0, 0, 0, 3, 3, 5]), Grouped(2, lambda counts: [0, None, 2]))
    truth = mass_oracle(model, whole, Turn(cuts=cuts))
    row, logits = truth.rows[0], truth.logits[0]
    assert isinstance(row, MassRow)
    first, stop, n = 3, whole.prefills[0][1], whole.length
    near = (row.embeds[first + 3] - row.embeds[[first, first + 5]]).norm(dim=1)
    middle = torch.tensor([3.0, 0.0, 1.0])
    middle[0 if near[0] < near[1] else 2] += 2.0
    begun, merged, ended = torch.ones(n).double(), torch.zeros(n).double(), torch.zeros(n).double()
    merged[:first] = ended[:first] = merged[first + 6 :] = ended[first + 6 :] = 1.0
    merged[first : first + 6] = torch.tensor([3.0, 0, 0, 2, 0, 1])
    ended[first : first + 6] = torch.tensor([middle[0], 0, 0, 0, 0, middle[2]])
    later = (torch.arange(n) >= stop).unsqueeze(1)
    causal, lowest = torch.ones(n, n).double().tril().log(), torch.finfo(torch.float64).min
    itself = torch.eye(n).bool()  # what has gone still sees itself, so that no line of its softmax is empty
    masks = []
    for mass in (begun, begun, merged, ended):
        mask = causal + torch.where(later, ended.log(), mass.log())
        masks.append(torch.where(itself, mask.clamp(min=0), mask.clamp(min=lowest)))
    mix = torch.eye(n).double()
    mix[first, first : first + 3] = 1 / 3
    mix[first + 3, first + 3 : first + 5] = 1 / 2
    found = by_library(model, row, masks, {1: mix})
    columns = row.kept(n)
    assert float((found[columns] - logits[columns]).abs().max()) < 1e-5  # the library rotates in fp32
    assert float((found[columns] - without_bias(model, truth).logits[0][columns]).abs().max()) > 100 * TOLERANCE


def test_turns_may_differ() -> None:
    """Only the first turn's video has mass; the second's stands as the plain model has it, and loses nothing."""
    model, whole = shared_model(), talk("ragged")
    row = mass_row(model, whole, 0, [BOTH[1], PLAIN, PLAIN])
    last = whole.prefills[-1][0]
    assert {row.columns[place] < last for place in row.mass} == {True}
    assert len([c for c in row.kept(whole.length) if c >= last]) == 3 + 2 * 2 + 3 * 2 * 2 + 2 * 2 + 3 + 1 - 1
    assert max(mass_row(model, whole, 0, [MERGE[1], PLAIN, PLAIN]).held(whole.length)) > 2
