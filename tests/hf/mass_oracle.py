# SPDX-License-Identifier: Apache-2.0
"""The oracle of attention mass: the full-length model of :mod:`hf.oracle`, with log(mass) on the columns that stay.

What happens before the decoder and after a layer is one kind of step: tokens go into others, or are dropped and leave
their mass to the nearest. A query of the same prefill sees what stands at its layer, a later one what is left.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hf.oracle import TIE, Cut, Oracle, Row, attention_at, build_row, clip_features, run
from hf.prompts import Placed, Prompt
from torch import Tensor

from tokenprune.tokens import VisualTokens

Homes = list[int | None]
"""Of each token the place among them of the one that it goes on in (an anchor: its own), None for dropped."""


@dataclass
class MassRow(Row):
    """A row of which no place is taken out: what has gone is masked.

    Args:
        video: number of the video or image that each visual place belongs to.
        stop: first column of what comes after the prefill of each visual place.
        mass: of each visual place its masses so far: (after which layer of its prefill, mass), the oldest after -1.
        merged: layer -> the anchors and the places whose mean they hold from the next layer on.
    """

    video: dict[int, int] = field(default_factory=dict)
    stop: dict[int, int] = field(default_factory=dict)
    mass: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    merged: dict[int, list[tuple[int, list[int]]]] = field(default_factory=dict)

    def mass_now(self, place: int) -> float:
        return self.mass[place][-1][1] if place in self.mass else 1.0

    def held(self, before: int) -> list[float]:
        """The mass of each of :meth:`kept`, text included."""
        return [self.mass_now(self.columns.index(column)) for column in self.kept(before)]

    def bias(self, layer: int) -> Tensor:
        added = self.embeds.new_zeros(len(self.columns), len(self.columns))
        for key, marks in self.mass.items():
            own = [mass for after, mass in marks if after < layer][-1]
            later = bisect_left(self.columns, self.stop[key])
            added[:later, key], added[later:, key] = math.log(own), math.log(self.mass_now(key))
        return added

    def after(self, layer: int, hidden: Tensor) -> Tensor:
        mixed = hidden.clone()
        for anchor, members in self.merged.get(layer, []):
            mixed[anchor] = sum(hidden[member] for member in members) / len(members)
        return mixed


@dataclass(frozen=True)
class Scored(Cut):
    """What an ``AttnPrune`` with the paper's scores and one ranking does: attention per original token."""

    def attention(self, model: Any, row: MassRow) -> list[Tensor]:
        return attention_at(model, row, self.layer)

    def per_token(self, probability: float, mass: float) -> float:
        return probability / mass

    def homes(self, model: Any, row: MassRow, left: list[int], asking: list[int]) -> Homes:
        count = self.count(len(left))
        if count == len(left):
            return list(range(count))
        heads = self.attention(model, row)
        read = {p: max(float(head[q, p]) for head in heads for q in asking) for p in left}
        score = [self.per_token(read[p], row.mass_now(p)) for p in left]
        best = sorted(range(len(left)), key=lambda i: (-score[i], i))
        last, next_ = score[best[count - 1]], score[best[count]]
        assert last - next_ > TIE * last, "this prompt has a close tie: choose another seed"
        return [i if i in best[:count] else None for i in range(len(left))]


@dataclass(frozen=True)
class Grouped:
    """What an operator at a layer does that looks at nothing but how many tokens each video has."""

    layer: int
    rule: Callable[[list[int]], Homes]
    modalities: tuple[str, ...] = ("video",)

    def homes(self, model: Any, row: MassRow, left: list[int], asking: list[int]) -> Homes:
        videos = [row.video[place] for place in left]
        return self.rule([videos.count(video) for video in dict.fromkeys(videos)])


@dataclass(frozen=True)
class Turn:
    """What a pipeline does to one prefill: operators before the LLM, cuts inside it, and whether mass is kept."""

    mergers: tuple[Any, ...] = ()
    cuts: tuple[Scored | Grouped, ...] = ()
    mass: bool = True

    def keeping(self, mass: bool) -> Turn:
        return replace(self, mass=mass)


PLAIN = Turn(mass=False)


@torch.no_grad()
def mass_row(model: Any, whole: Prompt, number: int, turns: Sequence[Turn]) -> MassRow:
    """One row of a prompt, answers and later turns included; ``turns`` has one entry a prefill."""
    plain = build_row(model, whole, number)
    row = MassRow(plain.embeds, plain.positions, plain.columns, plain.kind, plain.sources)
    for turn, (start, stop) in zip(turns, whole.prefills, strict=True):
        clips = [placed for placed in whole.clips[number] if start <= placed.column < stop]
        for placed in clips:
            first = row.columns.index(placed.column)
            for place in range(first, first + placed.clip.count):
                row.video[place], row.stop[place] = placed.column, stop
                if turn.mass:
                    row.mass[place] = [(-1, 1.0)]
        if clips:
            before_the_decoder(model, row, clips, turn.mergers)
            inside(model, row, [p for p, c in enumerate(row.columns) if start <= c < stop], turn.cuts)
    return row


def before_the_decoder(model: Any, row: MassRow, clips: list[Placed], mergers: Sequence[Any]) -> None:
    videos = {
        placed.column: VisualTokens(
            clip_features(model, placed), (placed.clip.frames, placed.clip.height, placed.clip.width)
        )
        for placed in clips
        if placed.clip.modality == "video"
    }
    for merger in mergers:
        dropped: list[int] = []
        for video, tokens in videos.items():
            plan = merger.plan(tokens)
            anchors = plan.anchors.tolist()
            homes = [anchors[place] if place >= 0 else None for place in plan.assign.tolist()]
            left = [place for place, own in row.video.items() if own == video and place not in row.removed]
            dropped += step(row, -1, left, homes)
            videos[video] = plan.apply(tokens)
        hand_over(row, -1, dropped)


def inside(model: Any, row: MassRow, new: list[int], cuts: Sequence[Scored | Grouped]) -> None:
    visual = [place for place in new if row.kind[place] != "text"]
    asking = [place for place in new if place > visual[-1]]
    for cut in cuts:
        left = [p for p in visual if row.kind[p] in cut.modalities and p not in row.removed]
        if left:
            hand_over(row, cut.layer, step(row, cut.layer, left, cut.homes(model, row, left, asking)))


def step(row: MassRow, layer: int, left: list[int], homes: Homes) -> list[int]:
    """Let the places ``left`` go on in their homes after ``layer``; the dropped ones, which still hold their mass."""
    groups: dict[int, list[int]] = {}
    for place, home in zip(left, homes, strict=True):
        if home is not None:
            groups.setdefault(left[home], []).append(place)
    for anchor, members in groups.items():
        assert anchor in members
        if len(members) == 1:
            continue
        if layer < 0:
            row.embeds[anchor] = row.embeds[members].sum(dim=0) / len(members)
        else:
            row.merged.setdefault(layer, []).append((anchor, members))
        row.sources[anchor] = sorted(column for member in members for column in row.sources[member])
        receive(row, layer, anchor, sum(row.mass_now(member) for member in members))
    for place in left:
        if place not in groups:
            row.removed[place] = (layer, row.stop[place])
    return [place for place, home in zip(left, homes) if home is None]


def receive(row: MassRow, layer: int, place: int, mass: float) -> None:
    if place in row.mass:
        row.mass[place].append((layer, mass))


def hand_over(row: MassRow, layer: int, dropped: list[int]) -> None:
    for place in dropped:
        heir = nearest(row, place)
        receive(row, layer, heir, row.mass_now(heir) + row.mass_now(place))


def nearest(row: MassRow, dropped: int) -> int:
    """The kept token with the nearest input features: of its own video, else of the row's prefill."""
    kept = [p for p in row.video if p not in row.removed and row.stop[p] == row.stop[dropped]]
    near = [p for p in kept if row.video[p] == row.video[dropped]] or kept
    distance = {p: float((row.embeds[p] - row.embeds[dropped]).norm()) for p in near}
    heir = min(near, key=lambda p: (distance[p], p))
    for other in near:
        apart = distance[other] - distance[heir]
        assert apart == 0 or apart > TIE * distance[other], "this prompt has a close tie: choose another seed"
    return heir


def mass_oracle(model: Any, whole: Prompt, *turns: Turn) -> Oracle:
    """Everything that a pruned run must agree with; one ``Turn`` for all prefills, or one for each."""
    each = turns * len(whole.prefills) if len(turns) == 1 else turns
    rows = [mass_row(model, whole, number, each) for number in range(len(whole.ids))]
    return Oracle(list(rows), [run(model, row) for row in rows])


def without_bias(model: Any, truth: Oracle, start: int = 0, stop: float = math.inf) -> Oracle:
    """The same tokens kept and merged, but nothing added for the visual tokens of the columns ``[start, stop)``."""
    rows: list[Row] = []
    for row in truth.rows:
        assert isinstance(row, MassRow)
        kept = {place: marks for place, marks in row.mass.items() if not start <= row.columns[place] < stop}
        rows.append(replace(row, mass=kept))
    return Oracle(rows, [run(model, row) for row in rows])
