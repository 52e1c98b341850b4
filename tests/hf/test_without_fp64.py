# SPDX-License-Identifier: Apache-2.0
"""A whole answer on a device that has no fp64."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from following import WithoutFp64, following_with
from hf.prompts import Clip, image, prompt, shared_model
from hf.running import answers

import tokenprune as tp

ROWS = prompt([[5, Clip(4, 3, 3), 6], [9, Clip(2, 2, 2), 3, image(2, 2), 7]])
PIPELINE = [
    tp.STMerge(temporal_segment_ratio=0.5, min_tokens=1),
    tp.AttnPrune(layer=1, keep_ratio=0.5, select="stratified"),
]


def test_answers_are_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared_model()
    with tp.attach(model, PIPELINE) as session:
        plain = answers(model, ROWS)
        kept = [row.tolist() for row in session.report.kept]
    there = following_with(monkeypatch, WithoutFp64)
    with tp.attach(model, PIPELINE) as session, there(*model.parameters(), *model.buffers()) as waits:
        assert answers(model, ROWS) == plain
        assert waits
    assert [row.tolist() for row in session.report.kept] == kept
