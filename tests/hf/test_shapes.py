# SPDX-License-Identifier: Apache-2.0
"""Law 9 through a whole model: pruning makes nothing as large as (all queries x all keys) that the plain run does not.

Scorers and mergers alone are watched at real size in the tests of the core; here it is what carries them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

pytest.importorskip("transformers")

from hf.prompts import Clip, Prompt, prompt, shared_model

import tokenprune as tp
from tokenprune.scorers import attention

PIPELINES: dict[str, list[Any]] = {
    "stage 1": [tp.STMerge()],
    "stage 2": [tp.AttnPrune(layer=1, keep_ratio=0.4)],
    "stage 2, content": [tp.AttnPrune(layer=1, keep_ratio=0.4, scorer="content")],
    "both": [tp.STMerge(), tp.AttnPrune(layer=1, keep_ratio=0.4)],
}


class Sizes(TorchDispatchMode):
    """How many numbers each tensor has that any operation puts out."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.made += [t.numel() for t in tree_leaves(result) if isinstance(t, Tensor)]
        return result

    def at_least(self, size: int) -> int:
        return sum(made >= size for made in self.made)


@torch.no_grad()
def watch(model: Any, given: Prompt, operators: list[Any]) -> Sizes:
    """One prefill without the visual tower, whose work is the same with and without pruning."""
    inputs = given.inputs()
    pixels, grid = inputs.pop("pixel_values_videos"), inputs["video_grid_thw"]
    features = model.model.get_video_features(pixels, grid, return_dict=True)
    model.model.get_video_features = lambda *_, **__: features
    try:
        with tp.attach(model, tp.Pipeline(operators)), Sizes() as sizes:
            model(**inputs, pixel_values_videos=pixels[:1], logits_to_keep=1)
    finally:
        del model.model.get_video_features
    return sizes


@pytest.mark.parametrize("operators", PIPELINES.values(), ids=PIPELINES)
def test_long_prompt(operators: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of 2 900 tokens needs no mask, so no matrix over queries and keys exists at all."""
    model, given = shared_model(), prompt([[10, Clip(14, 10, 20), 60]])
    monkeypatch.setattr(attention, "SCORE_BYTES", 2**19)  # at once it would be 2.8 MB
    plain, pruned = watch(model, given, []), watch(model, given, operators)
    assert max(plain.made) < given.length**2 / 8
    assert max(pruned.made) < given.length**2 / 8


@pytest.mark.parametrize("rows", [[[10, Clip(4, 8, 16), 30]], [[10, Clip(4, 8, 16), 30], [20]]], ids=["one", "padded"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("operators", PIPELINES.values(), ids=PIPELINES)
def test_no_matrix_that_the_plain_run_lacks(operators: list[Any], backend: str, rows: list[Any]) -> None:
    """Masks of a padded batch and eager attention are such matrices: pruning makes fewer of them."""
    model, given = shared_model(backend), prompt(rows)
    plain, pruned = watch(model, given, []), watch(model, given, operators)
    square = len(rows) * given.length**2  # a mask; attention has as much for each head
    assert pruned.at_least(square) <= plain.at_least(square)
    if backend == "eager":
        assert 0 < pruned.at_least(square) < plain.at_least(square)
