# SPDX-License-Identifier: Apache-2.0
"""``AttnPrune`` with a floor in a whole model: what it keeps is what a full-length model says, told in plain loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("transformers")

from hf.compare import agrees, forwards, generate, reports
from hf.mass_cases import COVER, FIRST, ST_MERGE, TEXT_TURN, VIDEO_TURN, over_rows
from hf.mass_oracle import Homes, MassRow, Scored, Turn, mass_oracle
from hf.names import cache_of
from hf.oracle import TIE
from hf.prompts import prompt, shared_model

import tokenprune as tp
from tokenprune.errors import UnsupportedModeError


@dataclass(frozen=True)
class Floored(Scored):
    """Half of the budget, rounded up, to the tokens that farthest points find first among what entered the decoder."""

    def homes(self, model: Any, row: MassRow, left: list[int], asking: list[int]) -> Homes:
        count = self.count(len(left))
        if count == len(left):
            return list(range(count))
        first = farthest(row, left, (count + 1) // 2)
        heads = self.attention(model, row)
        read = [max(float(head[q, p]) for head in heads for q in asking) / row.mass_now(p) for p in left]
        others = sorted(set(range(len(left))) - set(first), key=lambda i: (-read[i], i))
        rest = count - len(first)
        if 0 < rest < len(others):
            last, next_ = read[others[rest - 1]], read[others[rest]]
            assert last - next_ > TIE * last, "this prompt has a close tie: choose another seed"
        kept = [*first, *others[:rest]]
        return [i if i in kept else None for i in range(len(left))]


def farthest(row: MassRow, left: list[int], count: int) -> list[int]:
    points = [row.embeds[place] for place in left]
    middle = sum(points) / len(points)
    picks: list[int] = []
    while len(picks) < count:
        away = [
            -1.0 if i in picks else min(float((p - q).norm()) for q in ([points[j] for j in picks] or [middle]))
            for i, p in enumerate(points)
        ]
        best, second = sorted(away)[:-3:-1]
        assert best - second > TIE * best, "this prompt has a close tie: choose another seed"
        picks.append(away.index(best))
    return picks


PRUNE = tp.AttnPrune(layer=1, keep_ratio=0.4, floor=0.5)
CASES: dict[str, tuple[list[Any], Turn]] = {
    "alone": ([PRUNE], Turn(cuts=(Floored(1, 0.4),))),
    "after a merger": ([ST_MERGE, PRUNE], Turn((ST_MERGE,), (Floored(1, 0.4),))),
    "after Cover": ([COVER, PRUNE], Turn((COVER,), (Floored(1, 0.4),))),
    "twice": (
        [tp.AttnPrune(layer=0, keep_ratio=0.6, floor=0.5), tp.AttnPrune(layer=2, keep=3, floor=0.5)],
        Turn(cuts=(Floored(0, 0.6), Floored(2, keep=3))),
    ),
}
over_cases = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])


@over_cases
@over_rows
@pytest.mark.parametrize("mass", ["sizes", None])
def test_generate(case: tuple[list[Any], Turn], rows: str, mass: str | None) -> None:
    (operators, turn), model, given = case, shared_model(), prompt(FIRST[rows])
    with tp.attach(model, tp.Pipeline(operators, mass=mass)) as session:
        run = generate(model, given)
    truth = mass_oracle(model, given.answered(run.sequences[:, given.length :]), turn.keeping(mass is not None))
    reports(session, truth, given.length, cache_of(run))
    agrees(run.logits, truth, given.length - 1)


def test_the_floor_decides() -> None:
    """Without it, other tokens stay."""
    model, given, kept = shared_model(), prompt(FIRST["ragged"]), []
    for floor in (0.0, 0.5):
        with tp.attach(model, tp.AttnPrune(layer=1, keep_ratio=0.4, floor=floor)) as session:
            generate(model, given, new=1)
        kept.append([columns.tolist() for columns in session.report.kept])
    assert kept[0] != kept[1]
    assert [len(row) for row in kept[0]] == [len(row) for row in kept[1]]


@pytest.mark.parametrize("parts", [TEXT_TURN, VIDEO_TURN], ids=["text", "video"])
def test_later_turns(parts: dict[str, list[Any]]) -> None:
    (operators, turn), model, given = CASES["after a merger"], shared_model(), prompt(FIRST["ragged"])
    with tp.attach(model, tp.Pipeline(operators, mass="sizes")):
        run = generate(model, given, new=2)
        talk = given.answered(run.sequences[:, given.length :]).then(parts["ragged"])
        whole, steps = forwards(model, talk, cache_of(run), new=2)
    agrees(steps, mass_oracle(model, whole, turn), talk.length - 1)


@dataclass(frozen=True)
class Early:
    """Asks before the LLM for what enters it."""

    needs: tuple[str, ...] = ("embeddings",)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return tp.TokenPlan.identity(len(tokens))


def test_what_enters_the_llm_is_not_there_before_it() -> None:
    with pytest.raises(UnsupportedModeError, match="needs embeddings, but acts before the LLM"):
        tp.attach(shared_model(), Early())
