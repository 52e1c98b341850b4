# SPDX-License-Identifier: Apache-2.0
"""How often a pruned prefill makes the host wait for the device, beside the plain model."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from following import following_with
from hf.prompts import Clip, prompt, shared_model

import tokenprune as tp


def waits_of(monkeypatch: pytest.MonkeyPatch, pipeline: tp.Pipeline | None, rows: list[Any]) -> list[str]:
    """The waits of one forward over a prompt of these rows."""
    model, batch = shared_model(), prompt(rows)
    inputs = {**batch.inputs(), "position_ids": batch.positions(model)}
    tensors = [value for name, value in inputs.items() if not name.endswith("grid_thw")]
    attached = nullcontext() if pipeline is None else tp.attach(model, pipeline)
    with torch.no_grad(), attached as session, following_with(monkeypatch)(*tensors) as waits:
        model(**inputs)
    if session is not None:
        assert session.report is not None
        assert pipeline is None or len(session.report.stages) == len(pipeline)
    return waits


def more_than_plain(monkeypatch: pytest.MonkeyPatch, operators: list[Any], rows: list[Any]) -> dict[str, int]:
    pruned, plain = waits_of(monkeypatch, tp.Pipeline(operators), rows), waits_of(monkeypatch, None, rows)
    return dict(Counter(pruned) - Counter(plain))


ONE = [[3, Clip(8, 4, 5), 4]]


def test_looking_at_a_prompt_waits_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the ids, the mask and the positions, before the decoder has anything to do."""
    assert more_than_plain(monkeypatch, [], ONE) == {"cpu": 3}


def test_stage_1_adds_three_waits_a_video(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the segments, for what is static, for the plan's laws."""
    assert more_than_plain(monkeypatch, [tp.STMerge()], ONE) == {"cpu": 4, "tolist": 1, "_local_scalar_dense": 1}


def test_stage_2_adds_two_waits_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """For scores that are no numbers, for the plan's laws. How many layers are cut does not matter."""
    for layer in (0, 2):
        found = more_than_plain(monkeypatch, [tp.AttnPrune(layer, keep_ratio=0.4)], ONE)
        assert found == {"cpu": 3, "_local_scalar_dense": 2}


def test_rows_and_videos_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[3, Clip(8, 4, 5), 4], [2, Clip(4, 4, 5), 1, Clip(6, 3, 4), 5]]
    found = more_than_plain(monkeypatch, [tp.STMerge(), tp.AttnPrune(1, keep_ratio=0.4)], rows)
    # The row of two videos asks once more, where the one ends and the other begins among the tokens that are kept; the
    # library looks twice at the mask of the shortened rows, as it does at the first.
    assert found == {"cpu": 3 + 3, "tolist": 3 + 1, "_local_scalar_dense": 3 + 2 * 2 + 2}
