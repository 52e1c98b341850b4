# SPDX-License-Identifier: Apache-2.0
"""Laws of attention mass: merged copies are seen as copies, mass is conserved, and masses of 1 change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from hf.compare import agrees, forwards, generate, reports
from hf.mass_cases import (
    FIRST,
    PIXELS,
    ST_MERGE,
    Case,
    Undecided,
    as_plan,
    held,
    needs_mass,
    over_backends,
    over_more,
    over_pipelines,
    over_rows,
    with_mass,
)
from hf.mass_oracle import MassRow, Scored, Turn, mass_oracle
from hf.names import CACHE, cache_of
from hf.oracle import attention_at
from hf.prompts import PATCH, Clip, prompt, shared_model
from qwen25vl.tiny import tiny_model

import tokenprune as tp

pytestmark = needs_mass


@dataclass(frozen=True)
class Fold:
    """Merges every frame into the first one, cell by cell."""

    site: ClassVar[str] = "before_llm"
    modalities: ClassVar[tuple[str, ...]] = ("video",)
    needs: ClassVar[tuple[str, ...]] = ()
    budget: ClassVar[Any] = Undecided()

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        cells = tokens.grid[1] * tokens.grid[2]
        return as_plan([i % cells for i in range(len(tokens))])


def copies(rows: list[Any]) -> tuple[dict[str, Any], int]:
    """Inputs whose one video shows the same frame again and again, at one time; how many tokens come after it."""
    given = prompt(rows)
    (placed,), inputs = given.clips[0], given.inputs()
    frame = placed.pixels.view(placed.clip.frames, -1, PATCH)[:1]
    inputs["pixel_values_videos"] = frame.expand(placed.clip.frames, -1, -1).reshape(-1, PATCH)
    positions, last = given.positions(shared_model()).clone(), placed.column + placed.clip.count
    video = positions[:, :, placed.column : last]
    cells = placed.clip.height * placed.clip.width
    video[:] = video[:, :, :cells].repeat(1, 1, placed.clip.frames)
    inputs["position_ids"] = positions
    return inputs, given.length - last


@torch.no_grad()
def attended(model: Any, inputs: dict[str, Any], rows: int) -> Tensor:
    """``(rows, D)``: what the first layer's attention puts out for the last tokens."""
    found: list[Tensor] = []
    first = model.model.language_model.layers[0].self_attn
    handle = first.register_forward_hook(lambda module, args, output: found.append(output[0][0, -rows:].float()))
    try:
        model(**inputs)
    finally:
        handle.remove()
    (attention,) = found
    return attention


@over_backends
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_merged_copies_are_seen_as_copies(dtype: torch.dtype, tolerance: float, attention: str) -> None:
    model = tiny_model().to(dtype)
    model.set_attn_implementation(attention)
    inputs, after = copies([[3, Clip(3, 2, 2), 4]])
    wanted = attended(model, inputs, after)
    apart = []
    for mass in ("sizes", None):
        with tp.attach(model, tp.Pipeline([Fold()], mass=mass)) as session:  # pyright: ignore[reportCallIssue]
            found = attended(model, inputs, after)
        assert session.report.visual_tokens == [12]
        assert [len(kept) for kept in session.report.kept] == [3 + 1 + 4 + 1 + 4]
        apart.append(float((found - wanted).abs().max() / wanted.abs().max()))
    assert apart[0] < tolerance < 5e-2 < apart[1]


@over_rows
@pytest.mark.parametrize("more", [{}, {"num_beams": 2}], ids=str)
@over_pipelines
def test_mass_is_conserved(case: Case, more: dict[str, Any], rows: str) -> None:
    """Over a row: the number of visual tokens there were, and one for each token of text."""
    model, given = shared_model(), prompt(FIRST[rows])
    with tp.attach(model, with_mass(case[0])):
        cache = cache_of(generate(model, given, **more))
    times = more.get("num_beams", 1)
    total = [int(row.sum()) + 3 for row in given.mask for _ in range(times)]
    assert [sum(row.values()) for row in held(cache)] == total
    assert max(mass for row in held(cache) for mass in row.values()) > 1


@over_more
def test_mass_is_conserved_by_more_pipelines(case: Case) -> None:
    model, given = shared_model(), prompt(FIRST["ragged"])
    with tp.attach(model, with_mass(case[0])):
        cache = cache_of(generate(model, given))
    assert [sum(row.values()) for row in held(cache)] == [int(row.sum()) + 3 for row in given.mask]


KEEP_ALL: dict[str, list[Any]] = {
    "empty": [],
    "before the LLM": [tp.STMerge(keep_ratio=1.0), tp.UniformSelect(keep_ratio=1.0)],
    "inside": [tp.AttnPrune(layer=1, keep_ratio=1.0), tp.AttnPrune(layer=2, keep=1000)],
    "another modality": [tp.AttnPrune(layer=1, keep=1, modalities=("image",))],
    "everything": [tp.STMerge(keep_ratio=1.0), tp.AttnPrune(layer=1, keep_ratio=1.0)],
}


@contextmanager
def masks_of(model: Any) -> Iterator[list[Tensor | None]]:
    """The masks that the attention modules are really given, hooks of a session that runs already included."""
    masks: list[Tensor | None] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        masks.append(kwargs["attention_mask"])

    layers = model.model.language_model.layers
    handles = [layer.self_attn.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        yield masks
    finally:
        for handle in handles:
            handle.remove()


@over_backends
@over_rows
@pytest.mark.parametrize("operators", KEEP_ALL.values(), ids=KEEP_ALL)
def test_where_every_mass_is_one_nothing_is_composed(operators: list[Any], rows: str, attention: str) -> None:
    """Bit-identical to the plain model over two turns, masks included; and the cache goes on without a session."""
    model, given = shared_model(attention), prompt(FIRST[rows])

    def talk() -> tuple[list[Any], list[Tensor | None], Any]:
        with masks_of(model) as masks:
            first = generate(model, given)
            second = given.answered(first.sequences[:, given.length :]).then([[3]] * len(given.ids))
            run = generate(model, second, **{CACHE: cache_of(first)}, **dict.fromkeys(PIXELS))
        return [*first.logits, *run.logits], masks, (second.answered(run.sequences[:, second.length :]), run)

    plain, plain_masks, _ = talk()
    with tp.attach(model, with_mass(operators)):
        logits, masks, last = talk()
    assert all(torch.equal(a, b) for a, b in zip(plain, logits, strict=True))
    for one, other in zip(plain_masks, masks, strict=True):
        assert one is other or (one is not None and other is not None and one.dtype == other.dtype)
        assert one is None or torch.equal(one, other)
    said, run = last
    forwards(model, said.then([[2]] * len(said.ids)), cache_of(run), new=1)


@dataclass(frozen=True)
class Undivided(Scored):
    """Scores by the biased softmax, all tokens of a column together."""

    def per_token(self, probability: float, mass: float) -> float:
        return probability


@dataclass(frozen=True)
class Unbiased(Undivided):
    """Scores by a softmax that the layer does not use."""

    def attention(self, model: Any, row: MassRow) -> list[Tensor]:
        return attention_at(model, replace(row, mass={}), self.layer)


@over_backends
@pytest.mark.parametrize("layer", [0, 1])
def test_scores_are_attention_per_original_token(layer: int, attention: str) -> None:
    """Read from the layer's own softmax, bias included, divided by the mass; other readings keep other tokens."""
    model, given = shared_model(attention), prompt([[3, Clip(6, 2, 3), 8]])
    with tp.attach(model, with_mass([ST_MERGE, tp.AttnPrune(layer=layer, keep_ratio=0.5)])) as session:
        found = generate(model, given)
    whole = given.answered(found.sequences[:, given.length :])
    kept = []
    for reading in (Scored, Undivided, Unbiased):
        truth = mass_oracle(model, whole, Turn((ST_MERGE,), (reading(layer, 0.5),)))
        kept.append(truth.rows[0].kept(given.length))
        if reading is Scored:
            reports(session, truth, given.length, cache_of(found))
            agrees(found.logits, truth, given.length - 1)
    assert kept[0] not in kept[1:]
