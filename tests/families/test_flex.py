# SPDX-License-Identifier: Apache-2.0
"""Attention mass under flex attention: the answers of a batch are those under sdpa.

The library compiles the kernel, which needs a C++ toolchain and a minute; here it runs uncompiled.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from families.tiny import CASES, new_model, prompt
from torch import Tensor

import tokenprune as tp

CASE = next(case for case in CASES if str(case) == "llava_onevision")
PIPELINE = tp.Pipeline([tp.STMerge(keep_ratio=0.5, min_tokens=2), tp.AttnPrune(layer=1, keep_ratio=0.5)], mass="sizes")


def logits(backend: str, pipeline: tp.Pipeline | None) -> Tensor:
    """``(steps, rows, vocabulary)`` of a prefill of two unequal rows and two decoding steps."""
    torch.manual_seed(0)
    model = new_model(CASE)
    model.set_attn_implementation({"text_config": backend})
    options: dict[str, Any] = {
        "do_sample": False, "min_new_tokens": 3, "max_new_tokens": 3, "return_dict_in_generate": True,
        "output_logits": True,
    }  # fmt: skip
    given = prompt(CASE, CASE.rows[:2], [0, 1])
    with torch.no_grad(), tp.attach(model, pipeline or tp.Pipeline([])):
        return torch.stack(model.generate(**given.inputs, **options).logits)


def test_flex_attention_carries_mass_as_sdpa_does() -> None:
    expected = logits("sdpa", PIPELINE)
    with torch.compiler.set_stance("force_eager"):
        torch.testing.assert_close(logits("flex_attention", PIPELINE), expected, rtol=0, atol=1e-4)
        without = logits("flex_attention", tp.Pipeline(PIPELINE.operators, mass=None))
    assert (without - expected).abs().max() > 1e-2
