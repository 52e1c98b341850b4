# SPDX-License-Identifier: Apache-2.0
"""A layer's queries and keys, computed ahead from its input, are those that its own forward makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from families.tiny import CASES, Tiny, prompt, tiny_model
from torch import nn

from tokenprune.hf.families.adapter import FamiliesAdapter

KNOWN = [case for case in CASES if case.model_class is not None]


@pytest.mark.parametrize("case", KNOWN, ids=str)
def test_what_is_computed_ahead_is_what_the_layer_computes(case: Tiny) -> None:
    model, given = tiny_model(case), prompt(case, case.rows[:1])
    adapter, layers = FamiliesAdapter(), list(model.get_submodule(case.family.placed(model).text).layers)
    layer = max(index for index, each in enumerate(layers) if hasattr(each, "self_attn"))
    seen, ahead = (adapter.attention(model, layer) for _ in range(2))
    rows, everything = torch.arange(given.length - 3, given.length), torch.arange(given.length)
    taken: dict[str, Any] = {}

    def take(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        taken.update(hidden=args[0] if args else kwargs["hidden_states"], rotary=kwargs["position_embeddings"])

    handles = [layers[layer].self_attn.register_forward_pre_hook(take, with_kwargs=True), *seen.watch([rows])]
    with torch.no_grad():
        model(**given.inputs)
        for handle in handles:
            handle.remove()
        ahead.project(taken["hidden"], rows, taken["rotary"])  # type: ignore[attr-defined]
    one, other = (reader.view(0, None, given.valid[0], everything) for reader in (seen, ahead))
    for rotated in (False, True):
        torch.testing.assert_close(other.queries(rotated), one.queries(rotated))
        torch.testing.assert_close(other.keys(rotated), one.keys(rotated))
    assert one.queries().shape[0] % one.keys().shape[0] == 0
