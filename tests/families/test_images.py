# SPDX-License-Identifier: Apache-2.0
"""Images of families whose images and videos cannot stand in one batch, because they share a placeholder."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from families import layouts
from families.tiny import CASES, Tiny, prompt, tiny_model

import tokenprune as tp
from tokenprune.testing.masking import Removal, masked_logits
from tokenprune.testing.runs import require_close

APART = [case for case in CASES if case.write is layouts.bounded and case.model_class is not None]
BOTH = ("video", "image")


@pytest.mark.parametrize("case", APART, ids=str)
@pytest.mark.parametrize("operator", [tp.EVS(keep_ratio=0.5), tp.AttnPrune(layer=1, keep_ratio=0.5, modalities=BOTH)])
def test_images_alone(case: Tiny, operator: tp.Operator) -> None:
    """They are images to operators: one for videos leaves them, one for both prunes them as masking does."""
    model, image = tiny_model(case), case.clips[2]
    given = prompt(case, [[3, image, 2, image, 5], [1, image, 4]])
    with torch.no_grad():
        plain = model(**given.inputs).logits[:, -1]
        with tp.attach(model, operator) as session:
            found = model(**given.inputs).logits[:, -1]
    assert session.report is not None
    assert session.report.visual_tokens == [12, 6]
    if "image" not in getattr(operator, "modalities", ("video",)):
        assert torch.equal(found, plain)
        return
    removal = Removal.of(given, None, session.report, 1)
    assert int(removal.after.sum()) == 9
    truth = masked_logits(model, model.model.language_model, given, given.input_ids[:, :0], removal)
    require_close(found, truth[:, -1], "logits")
