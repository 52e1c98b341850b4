# SPDX-License-Identifier: Apache-2.0
"""What travels with the tokens is declared once; what nobody has declared is refused, never left at its old length."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.prompts import Clip, prompt, shared_model
from torch import Tensor, nn

import tokenprune as tp
from tokenprune.carried import Carried, follow
from tokenprune.hf.attention import rotation_of
from tokenprune.hf.carried import Cargo
from tokenprune.plan import TokenPlan
from tokenprune.runtime.slots import Gather
from tokenprune.runtime.state import Merged, Step

PLAN = TokenPlan(torch.tensor([0, 2]), torch.tensor([0, 0, 1]))
"""Of three tokens the second is merged into the first."""


def shortening() -> Step:
    """Of 2 rows of 4, whose visual tokens stand at 1, 2, 3 of row 0; row 1 is text and loses nothing."""
    gather = Gather(
        torch.tensor([[2, 0, 1, 3], [0, 1, 2, 3]]), torch.tensor([[False, *[True] * 3], [True] * 4]), [3, 4]
    )
    return Step(gather, (Merged(0, torch.tensor([1, 2, 3]), torch.tensor([2, 3]), PLAN),))


def test_each_rule_follows_a_plan() -> None:
    x = torch.tensor([1.0, 3.0, 5.0])
    assert [follow(x, PLAN, rule).tolist() for rule in ("gather", "merge", "sum")] == [[1, 5], [2, 5], [4, 5]]


@pytest.mark.parametrize("wrong", [{"rule": "sum"}, {"rule": "merge", "token_dim": -2}])
def test_a_declaration_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(tp.InvalidValueError, match="ids "):
        Carried("ids", **wrong)


def test_arguments_of_the_decoder_travel_by_their_rules() -> None:
    embeds = torch.arange(8.0).view(2, 4, 1)
    types = torch.tensor([[0, 2, 2, 2], [0, 0, 0, 0]])
    mask = types.bool()
    packed = [torch.tensor([[10.0], [20.0], [30.0]])]
    given = {
        "inputs_embeds": embeds,
        "position_ids": torch.arange(4).expand(3, 2, 4),
        "types": types,
        "use_cache": True,
    }
    cargo = Cargo((Carried("types"), Carried("deep", "merge", packed_by="where")))
    left = cargo.shorten_arguments({**given, "deep": packed, "where": mask}, shortening())
    assert left["inputs_embeds"][..., 0].tolist() == [[2, 0, 1.5, 3], [4, 5, 6, 7]]
    assert left["position_ids"][2].tolist() == [[2, 0, 1, 3], [0, 1, 2, 3]]
    assert left["types"].tolist() == [[2, 0, 2, 2], [0, 0, 0, 0]]
    assert (left["deep"], left["where"], left["use_cache"]) == (None, None, True)
    assert cargo.add(torch.zeros(2, 4, 1), 0)[0, 1:, 0].tolist() == [0, 15, 30]
    assert not cargo.add(torch.zeros(2, 4, 1), 0)[1].any()
    assert torch.equal(embeds, torch.arange(8.0).view(2, 4, 1))


def test_arguments_of_later_layers_are_shortened_once_and_shared() -> None:
    cargo, step = Cargo(), shortening()
    rotary = (torch.arange(8.0).view(2, 4, 1), torch.arange(4.0).view(1, 4, 1))
    assert cargo.for_layer({"position_embeddings": rotary})["position_embeddings"] is rotary
    cargo.shorten_hidden(torch.zeros(2, 4, 1), step)
    first, second = (cargo.for_layer({"position_embeddings": rotary})["position_embeddings"] for _ in range(2))
    assert first is second
    assert [part[:, :, 0].tolist() for part in first] == [[[2, 0, 1, 3], [4, 5, 6, 7]], [[2, 0, 1, 3], [0, 1, 2, 3]]]
    assert cargo.for_layer({"position_embeddings": None}) == {"position_embeddings": None}


def test_what_goes_with_the_tokens_undeclared_is_refused() -> None:
    model, given = shared_model(user="carried"), prompt([[3, Clip(3, 2, 3), 5]])

    def beside(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "token_kind": given.types}

    handle = model.model.language_model.register_forward_pre_hook(beside, with_kwargs=True)
    try:
        with (
            tp.attach(model, tp.UniformSelect(keep_ratio=0.5)),
            pytest.raises(tp.UnsupportedModeError, match="token_kind goes with the tokens"),
            torch.no_grad(),
        ):
            model(**given.inputs())
    finally:
        handle.remove()


def test_an_attention_whose_rotation_is_unknown_is_refused() -> None:
    with pytest.raises(tp.UnsupportedModeError, match="how Linear rotates"):
        rotation_of(nn.Linear(2, 2))


def test_the_rotation_is_the_models_own() -> None:
    from transformers.models.glm4v.modeling_glm4v import Glm4vTextAttention

    turn = rotation_of(Glm4vTextAttention.__new__(Glm4vTextAttention))
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]])
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    turned: Tensor = turn(x, zero, one)
    assert turned.flatten().tolist() == [-2, 1, -4, 3, 5, 6]  # by pairs, and the last two are not rotated
