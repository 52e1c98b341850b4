# SPDX-License-Identifier: Apache-2.0
"""Attention mass where its mask would be too large: in pieces of queries, to the same oracle, and never made whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("transformers")

import hf.test_mass as one_prompt
import hf.test_mass_turns as turns
from hf.mass_cases import (
    BOTH,
    FIRST,
    Case,
    needs_mass,
    over_backends,
    over_more,
    over_pipelines,
    over_rows,
    over_runs,
    with_mass,
)
from hf.prompts import Clip, prompt, shared_model

import tokenprune as tp
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf import mass_mask
from tokenprune.hf.mass_mask import MaskInPieces, with_bias

pytestmark = needs_mass
FEW = 300
"""Bytes: some 75 pairs of a query and a key, where the prompts of these tests have 300 and more."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[slice]:
    """Every mask of several queries that takes more than :data:`FEW` bytes comes in pieces; the queries of each."""
    seen: list[slice] = []
    part = MaskInPieces.part

    def noted(self: MaskInPieces, queries: slice, keys: int) -> Tensor:
        found = part(self, queries, keys)
        assert found.nbytes <= FEW or found.shape[-2] == 1
        seen.append(queries)
        return found

    monkeypatch.setattr(mass_mask, "MASK_BYTES", FEW)
    monkeypatch.setattr(MaskInPieces, "part", noted)
    return seen


@pytest.fixture
def made(small: list[slice]) -> Iterator[None]:
    """The same, and some mask really does."""
    yield
    assert any(queries.start > 0 for queries in small)


pieces = pytest.mark.usefixtures("made")


@pieces
@over_backends
@over_rows
@over_pipelines
def test_generate(case: Case, rows: str, attention: str) -> None:
    one_prompt.generates(FIRST[rows], case, attention)


@pytest.mark.usefixtures("small")
@over_more
def test_more_pipelines(case: Case) -> None:
    one_prompt.generates(FIRST["ragged"], case, "sdpa")


@pieces
@over_runs
def test_beams(rows: str, attention: str) -> None:
    one_prompt.test_beams(BOTH, rows, attention)


@pieces
@over_runs
def test_without_cache(rows: str, attention: str) -> None:
    one_prompt.test_generate_without_cache(BOTH, rows, attention)


@pieces
@over_backends
@over_rows
@pytest.mark.parametrize("parts", ["text", "video"])
def test_later_turns(parts: str, rows: str, attention: str) -> None:
    """Fewer queries than keys, of which the first have the mass of an earlier turn."""
    (turns.test_text_turn if parts == "text" else turns.test_video_turn)(BOTH, rows, attention)


class Watching(TorchDispatchMode):
    """Remembers the shapes of everything that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.shapes |= {
            tuple(each.shape) for each in (out if isinstance(out, tuple) else (out,)) if torch.is_tensor(each)
        }
        return out


def squares(pipeline: tp.Pipeline) -> set[tuple[int, ...]]:
    """Shapes of (queries x keys) that a prefill makes under sdpa."""
    model, inputs = shared_model(), prompt([[5, Clip(16, 4, 4), 6]]).inputs()
    with tp.attach(model, pipeline) as session, torch.no_grad(), Watching() as watching:
        model(**inputs, logits_to_keep=1)
    kept = len(session.report.kept[0])
    return {shape for shape in watching.shapes if shape[-2:] == (kept, kept)}


def test_the_whole_mask_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    operators = [tp.UniformSelect(keep_ratio=0.9)]
    assert not squares(tp.Pipeline(operators, mass=None))
    assert squares(with_mass(operators))
    monkeypatch.setattr(mass_mask, "MASK_BYTES", 40_000)
    assert squares(with_mass(operators)) == {(1, 1, 244, 244)}  # of no memory: what stands for the mask


@pytest.mark.parametrize("queries", [1, 2, 7, 12])
@pytest.mark.parametrize("given", ["none", "bool", "numbers"])
def test_pieces_are_parts_of_the_whole(given: str, queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(queries)
    bias = torch.rand(3, 1, 1, 12, generator=generator)
    seen = torch.rand(3, 1, queries, 12, generator=generator) < 0.7
    numbers = torch.where(seen, torch.rand(seen.shape, generator=generator), torch.finfo(torch.float32).min)
    mask = {"none": None, "bool": seen, "numbers": numbers}[given]
    whole = with_bias(bias, mask, queries)
    assert type(whole) is Tensor
    monkeypatch.setattr(mass_mask, "MASK_BYTES", 3 * 12 * 4 * 3)
    found = with_bias(bias, mask, queries)
    if queries <= 3:
        assert type(found) is Tensor
        assert torch.equal(found, whole)
        return
    assert isinstance(found, MaskInPieces)
    assert (found.shape, found.dtype, found.device) == (whole.shape, whole.dtype, whole.device)
    parts = list(found.pieces())
    assert [q.stop - q.start for q, _ in parts] == [3] * (queries // 3) + ([queries % 3] if queries % 3 else [])
    for part, keys in parts:
        assert torch.equal(found.part(part, keys), whole[..., part, :keys])
        assert bool((whole[..., part, keys:] == torch.finfo(torch.float32).min).all())
    logits = torch.rand(3, 2, queries, 12, generator=generator)
    assert torch.equal(logits + found, logits + whole)
    assert torch.equal(found + logits, logits + whole)


def test_what_is_done_with_it_otherwise_is_refused() -> None:
    mask = MaskInPieces.of(torch.zeros(1, 1, 1, 9), None, 9)
    for use in (lambda: mask * 2, lambda: mask[:, :, 1:], lambda: torch.softmax(mask, -1), lambda: mask.clone()):
        with pytest.raises(UnsupportedModeError, match="cannot be done in pieces"):
            use()
