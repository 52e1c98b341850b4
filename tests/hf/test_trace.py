# SPDX-License-Identifier: Apache-2.0
"""``report.spans``: the steps add up to what the report says was kept, and every score has its token."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from hf.prompts import Clip, image, prompt, shared_model
from hf.running import sequences

import tokenprune as tp

ROWS = prompt([[5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 3, Clip(2, 2, 3), 7], [4, image(2, 2), 2, Clip(4, 2, 2), 5]])


def test_steps_add_up() -> None:
    pipeline = tp.Pipeline([tp.STMerge(keep_ratio=0.7), tp.AttnPrune(layer=1, keep_ratio=0.5)])
    model = shared_model()
    with tp.attach(model, pipeline) as session:
        sequences(model, ROWS.inputs(), 2, num_return_sequences=2, do_sample=True)
    report = session.report
    assert report is not None
    assert len(report.spans) == 3
    for row, spans in enumerate(report.spans):
        kept = set(report.kept[row].tolist())
        for span in spans:
            total = span.grid[0] * span.grid[1] * span.grid[2]
            plan = tp.TokenPlan.identity(total)
            for step in span.steps:
                assert step.scores is None or len(step.scores) == step.plan.total
                plan = plan.then(step.plan)
            assert plan.anchors.tolist() == span.plan.anchors.tolist()
            assert plan.assign.tolist() == span.plan.assign.tolist()
            assert set(span.columns.tolist()) & kept == set(span.columns[plan.anchors].tolist())
            if span.modality == "image":
                assert span.steps == ()
            else:
                merge, cut = span.steps
                assert (merge.operator, merge.layer, merge.scores) == ("STMerge", None, None)
                assert (cut.operator, cut.layer) == ("AttnPrune", 1)
                assert cut.scores is not None
                assert bool((cut.scores > 0).all())
                segments = span.plan.segments or ()
                assert [frame for start, stop in segments for frame in range(start, stop)] == list(range(span.grid[0]))
    assert torch.equal(report.spans[0][0].columns, torch.arange(18) + report.spans[0][0].columns[0])
