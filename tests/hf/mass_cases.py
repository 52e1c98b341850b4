# SPDX-License-Identifier: Apache-2.0
"""What the tests of attention mass run: pipelines and what they do in plain words, prompts, what a cache holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from hf.compare import agrees, distance
from hf.mass_oracle import Grouped, Homes, MassRow, Scored, Turn, without_bias
from hf.oracle import Oracle
from hf.prompts import Clip, image

import tokenprune as tp

needs_mass = pytest.mark.skipif(
    "mass" not in inspect.signature(tp.Pipeline).parameters, reason="tokenprune.Pipeline takes no mass yet"
)
needs_plans_at_layers = pytest.mark.skipif(
    not hasattr(tp.AttnPrune, "site"), reason="an operator inside the decoder cannot return a merging plan yet"
)
SEEN = 0.01
"""Logits further apart than this are told apart: a hundred times the tolerance."""


def halved(counts: list[int]) -> Homes:
    """Each odd token of a video goes into the one before it; every fifth of the row is dropped, with what it holds."""
    homes: Homes = []
    for count in counts:
        start = len(homes)
        homes += [start + i - i % 2 for i in range(count)]
    dropped = set(homes[4::5]) if len(homes) > 5 else set()
    return [None if home in dropped else home for home in homes]


def joined(counts: list[int]) -> Homes:
    """Each token of a row goes into the nearest even place before it, whichever video that belongs to."""
    return [i - i % 2 for i in range(sum(counts))]


@dataclass(frozen=True)
class Undecided:
    """The budget of an operator whose plan decides how many stay."""

    def __call__(self, total: int) -> int | None:
        return None

    count = __call__


@dataclass(frozen=True)
class HalfOf:
    """Half of the tokens, rounded up."""

    def __call__(self, total: int) -> int | None:
        return (total + 1) // 2

    count = __call__


def as_plan(homes: Homes) -> tp.TokenPlan:
    anchors = [i for i, home in enumerate(homes) if home == i]
    return tp.TokenPlan(
        torch.tensor(anchors, dtype=torch.int64),
        torch.tensor([-1 if home is None else anchors.index(home) for home in homes], dtype=torch.int64),
    )


def video_lengths(tokens: Any) -> list[int]:
    """How many tokens each video of a row has: the one place here that reads ``tokens.spans``."""
    return [span.slice.stop - span.slice.start for span in tokens.spans]


@dataclass(frozen=True)
class HalveAt:
    """Merges and drops hidden states after a layer by :func:`halved`."""

    layer: int = 1
    modalities: tuple[str, ...] = ("video",)
    site: ClassVar[str] = "after_layer"
    needs: ClassVar[tuple[str, ...]] = ()
    rule: ClassVar[Callable[[list[int]], Homes]] = staticmethod(halved)
    budget: ClassVar[Any] = Undecided()

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return as_plan(type(self).rule(video_lengths(tokens)))


@dataclass(frozen=True)
class JoinAt(HalveAt):
    """Merges hidden states after a layer by :func:`joined`, to a number that its budget knows."""

    rule: ClassVar[Callable[[list[int]], Homes]] = staticmethod(joined)
    budget: ClassVar[Any] = HalfOf()


@dataclass(frozen=True)
class MergeAndDrop:
    """Merges and drops features of one video before the LLM by :func:`halved`."""

    site: ClassVar[str] = "before_llm"
    modalities: ClassVar[tuple[str, ...]] = ("video",)
    needs: ClassVar[tuple[str, ...]] = ()
    budget: ClassVar[Any] = Undecided()

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return as_plan(halved([len(tokens)]))


ST_MERGE = tp.STMerge(tau=0.6, cluster_ratio=0.5, temporal_segment_ratio=0.5, min_tokens=1)
SPACED = tp.UniformSelect(keep_ratio=0.5)
COVER = tp.Cover(keep_ratio=0.4)
Case = tuple[list[Any], Turn]
MERGE: Case = ([ST_MERGE], Turn((ST_MERGE,)))
SELECT: Case = ([tp.AttnPrune(layer=1, keep_ratio=0.4)], Turn(cuts=(Scored(1, 0.4),)))
BOTH: Case = ([ST_MERGE, tp.AttnPrune(layer=1, keep_ratio=0.4)], Turn((ST_MERGE,), (Scored(1, 0.4),)))
TWICE: Case = (
    [tp.AttnPrune(layer=0, keep_ratio=0.6), tp.AttnPrune(layer=2, keep=3)],
    Turn(cuts=(Scored(0, 0.6), Scored(2, keep=3))),
)
AT_LAYER: Case = ([HalveAt(1)], Turn(cuts=(Grouped(1, halved),)))
CASES: dict[str, Case] = {"merge": MERGE, "select": SELECT, "both": BOTH, "two selectors": TWICE}
LAYER_CASES: dict[str, Case] = {"merge at a layer": AT_LAYER}
MORE_CASES: dict[str, Case] = {
    "cover": ([COVER], Turn((COVER,))),
    "drop": ([SPACED], Turn((SPACED,))),
    "merge and drop": ([MergeAndDrop()], Turn((MergeAndDrop(),))),
    "merge then drop": ([ST_MERGE, SPACED], Turn((ST_MERGE, SPACED))),
    "select last": ([tp.AttnPrune(layer=3, keep_ratio=0.4)], Turn(cuts=(Scored(3, 0.4),))),
    "one in a row": ([tp.AttnPrune(layer=1, keep=1)], Turn(cuts=(Scored(1, keep=1),))),
}
MORE_LAYER_CASES: dict[str, Case] = {
    "merge across videos": ([JoinAt(0)], Turn(cuts=(Grouped(0, joined),))),
    "all three": (
        [ST_MERGE, HalveAt(0), tp.AttnPrune(layer=2, keep_ratio=0.4)],
        Turn((ST_MERGE,), (Grouped(0, halved), Scored(2, 0.4))),
    ),
}


def over_cases(cases: dict[str, Case], at_layers: dict[str, Case]) -> Any:
    """Parametrise over pipelines; those that merge at a layer wait for the protocol that lets them."""
    marked = [pytest.param(case, id=name, marks=needs_plans_at_layers) for name, case in at_layers.items()]
    return pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in cases.items()] + marked)


over_pipelines = over_cases(CASES, LAYER_CASES)
over_more = over_cases(MORE_CASES, MORE_LAYER_CASES)
over_backends = pytest.mark.parametrize("attention", ["sdpa", "eager"])
FIRST: dict[str, list[Any]] = {
    "one row": [[3, Clip(4, 2, 3), 4]],
    "ragged": [[2, Clip(4, 2, 2), 3, Clip(2, 2, 3), 5], [6, Clip(4, 2, 3), 7], [30]],
}
TEXT_TURN: dict[str, list[Any]] = {"one row": [[5]], "ragged": [[5], [2], [4]]}
VIDEO_TURN: dict[str, list[Any]] = {
    "one row": [[2, Clip(3, 2, 2), 3]],
    "ragged": [[2, Clip(3, 2, 2), 1, image(2, 2), 3], [9], [1, Clip(2, 2, 2), 2, Clip(2, 2, 3), 4]],
}
over_runs = pytest.mark.parametrize(("rows", "attention"), [("one row", "eager"), ("ragged", "sdpa")])
over_rows = pytest.mark.parametrize("rows", FIRST)
PIXELS = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "mm_token_type_ids")
"""What a turn of text leaves out: its visual tokens are in the cache already."""


def with_mass(operators: list[Any]) -> tp.Pipeline:
    return tp.Pipeline(operators, mass="sizes")  # pyright: ignore[reportCallIssue]


def agrees_only_with_bias(model: Any, steps: Any, truth: Oracle, first_column: int) -> None:
    """The logits are the oracle's, and not those of the same tokens without log(mass)."""
    agrees(steps, truth, first_column)
    assert distance(steps, without_bias(model, truth), first_column) > SEEN


def held(cache: Any) -> list[dict[int, float]]:
    """Per row the mass of each column that a cache stores; all layers agree."""
    layers = [masses_of(layer) for layer in cache.layers]
    assert all(layer == layers[0] for layer in layers)
    return layers[0]


def masses_of(layer: Any) -> list[dict[int, float]]:
    """Reads ``slot_mass()`` of a cache layer: ``(B, stored)`` fp32 beside ``slot_columns()``, None: every mass is 1."""
    columns, mass, valid = layer.slot_columns(), layer.slot_mass(), layer.slot_valid()
    if mass is None:
        mass = torch.ones(columns.shape)
    assert mass.dtype == torch.float32
    seen = torch.ones_like(mass, dtype=torch.bool) if valid is None else valid
    return [dict(zip(c[ok].tolist(), m[ok].tolist())) for c, m, ok in zip(columns, mass, seen, strict=True)]


def holds(cache: Any, truth: Oracle, before: int) -> None:
    """Assert that a cache holds the oracle's mass of every token at the columns below ``before``."""
    for row, found in zip(truth.rows, held(cache), strict=True):
        assert isinstance(row, MassRow)
        assert [found[column] for column in row.kept(before)] == row.held(before)
