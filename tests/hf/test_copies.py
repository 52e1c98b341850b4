# SPDX-License-Identifier: Apache-2.0
"""A copy of an attached model is detached and equals a copy of one that was never attached."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.prompts import Clip, prompt
from hf.running import answers, kept, state_of
from qwen25vl.tiny import tiny_model

import tokenprune as tp

PIPE = tp.Pipeline([tp.STMerge(keep_ratio=0.7), tp.AttnPrune(layer=1, keep_ratio=0.5)])
ONE = prompt([[5, Clip(3, 2, 3), 6]])


def saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),  # noqa: S301
    "pickle 2": lambda model: pickle.loads(pickle.dumps(model, protocol=2)),  # noqa: S301
    "torch.save": saved,
}


def shape_of(model: Any) -> dict[str, dict[str, Any]]:
    """What hangs on each module: the names of its attributes, and the number of its hooks."""
    return {
        name: {k: len(v) if "hooks" in k and isinstance(v, dict) else None for k, v in vars(module).items()}
        for name, module in model.named_modules()
    }


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(**ONE.inputs()).logits


@pytest.mark.parametrize("by", COPIES)
@pytest.mark.parametrize("pipeline", [PIPE, tp.Pipeline([])])
def test_a_copy_is_plain(by: str, pipeline: tp.Pipeline) -> None:
    model = tiny_model(layers=2)
    plain, expected, shape = answers(model, ONE), logits(model), shape_of(COPIES[by](model))
    with tp.attach(model, pipeline) as session:
        pruned = answers(model, ONE)
        attached = state_of(model)
        copied = COPIES[by](model)
        assert state_of(model) == attached
        assert shape_of(copied) == shape
        assert answers(copied, ONE) == plain
        assert torch.equal(logits(copied), expected)
        assert len(session.reports) == 1
        with tp.attach(copied, pipeline):
            assert answers(copied, ONE) == pruned
        assert answers(model, ONE) == pruned
    assert answers(model, ONE) == plain


def test_ones_own_hooks_and_generate_are_copied() -> None:
    model = tiny_model(layers=2)
    ran: list[Any] = []
    model.register_forward_pre_hook(lambda module, args: ran.append(module))
    model.generate = mine = lambda **kwargs: "mine"
    with tp.attach(model, PIPE):
        model.model.register_forward_pre_hook(lambda module, args: ran.append(module))
        copied = copy.deepcopy(model)
        logits(copied)
        logits(model)
    assert ran == [copied, copied.model, model, model.model]
    assert copied.generate is mine


def test_parts_and_wrappers_are_copied_plain() -> None:
    peft = pytest.importorskip("peft")
    model = tiny_model(layers=2)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"])).eval()
    shapes = [shape_of(copy.deepcopy(part)) for part in (wrapped, model.model, model.model.language_model)]
    plain = answers(wrapped, ONE)
    with tp.attach(wrapped, PIPE):
        assert answers(wrapped, ONE) != plain
        parts = (wrapped, model.model, model.model.language_model)
        assert [shape_of(copy.deepcopy(part)) for part in parts] == shapes
        assert answers(copy.deepcopy(wrapped), ONE) == plain


def test_a_shallow_copy_shares_the_session() -> None:
    model = tiny_model(layers=2)
    with tp.attach(model, PIPE) as session:
        expected = answers(model, ONE)
        shallow = copy.copy(model)
        assert answers(shallow, ONE) == expected
        assert len(session.reports) == 2
        with pytest.raises(tp.UnsupportedModeError, match="prefill_chunk_size"):
            answers(shallow, ONE, prefill_chunk_size=4)


@dataclass(frozen=True)
class Copying:
    """A scorer that copies the model it runs in."""

    take: Callable[[], Any]

    def score(self, view: tp.AttentionView) -> torch.Tensor:
        self.take()
        raise AssertionError("a copy was made")


@pytest.mark.parametrize("by", COPIES)
def test_no_copy_in_the_middle_of_a_prefill(by: str) -> None:
    model = tiny_model(layers=2)
    scorer = Copying(lambda: COPIES[by](model))
    pipeline = tp.Pipeline([tp.AttnPrune(layer=0, keep_ratio=0.5, scorer=scorer)])
    with tp.attach(model, pipeline), pytest.raises(tp.UnsupportedModeError, match="in the middle of a forward"):
        answers(model, ONE)


def test_sessions_are_not_copied() -> None:
    with tp.attach(tiny_model(layers=2), tp.Pipeline([])) as session:
        for take in COPIES.values():
            with pytest.raises(tp.UnsupportedModeError, match="session cannot be copied"):
                take(session)


def test_weights_are_saved_as_ever(tmp_path: Path) -> None:
    model = tiny_model(layers=2)
    model.save_pretrained(tmp_path / "plain")
    names = list(model.state_dict())
    with tp.attach(model, PIPE) as session:
        answers(model, ONE)
        attached = state_of(model)
        assert list(model.state_dict()) == names
        model.save_pretrained(tmp_path / "attached")
        assert state_of(model) == attached
        assert kept(session)
    files = sorted(file.name for file in (tmp_path / "plain").iterdir())
    assert files == sorted(file.name for file in (tmp_path / "attached").iterdir())
    for name in files:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "attached" / name).read_bytes()
