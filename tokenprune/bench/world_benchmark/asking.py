# SPDX-License-Identifier: Apache-2.0
"""Every entry asked about some clips at a time, and what came of it, clip by clip."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tokenprune.bench.benchmark import Row
from tokenprune.bench.world.palette import FPS
from tokenprune.bench.world.render import render
from tokenprune.bench.world_benchmark.asked import AskedClip, judged, normalised
from tokenprune.bench.world_benchmark.budgets import Decoder
from tokenprune.bench.world_benchmark.counting import Tally, compared_with, row_of
from tokenprune.bench.world_benchmark.entries import Entry, Fixed, Matched, Plain, Pressed, Suite, spending
from tokenprune.errors import TokenPruneError

if TYPE_CHECKING:
    from tokenprune.bench.world_benchmark.answering import Answers, Seen
    from tokenprune.hf.frontend.family import Loaded

ROWS = 32
"""Questions that are answered together, if the clips have so few; what a call costs besides is shared by them."""


def batches(clips: Sequence[AskedClip], known: Mapping[int, Any]) -> list[list[AskedClip]]:
    """The clips in order, as many together as have :data:`ROWS` questions; one that is known stands alone."""
    found: list[list[AskedClip]] = []
    room = 0
    for clip in clips:
        alone = clip.scene.seed in known
        if alone or len(clip.questions) > room:
            found.append([])
            room = ROWS
        found[-1].append(clip)
        room = 0 if alone else room - len(clip.questions)
    return found


@dataclass(frozen=True, eq=False)
class Look:
    """A clip that was looked at, and the time it took."""

    clip: Seen
    seconds: float


@dataclass(frozen=True, eq=False)
class Shown:
    """Clips that are asked about together: each by itself, and all as one batch."""

    clips: Sequence[AskedClip]
    each: Sequence[Seen]
    all: Seen

    @property
    def questions(self) -> int:
        return sum(len(clip.questions) for clip in self.clips)

    def split(self, answers: Answers) -> list[Answers]:
        """Those about each clip."""
        from tokenprune.bench.world_benchmark.answering import Answers

        ends = list(itertools.accumulate((len(clip.questions) for clip in self.clips), initial=0))
        places = [slice(begin, end) for begin, end in itertools.pairwise(ends)]
        return [Answers(answers.begun[at], answers.budgets[at], answers.retained[at]) for at in places]


@dataclass(eq=False)
class Run:
    """One model under examination."""

    loaded: Loaded
    suite: Suite = field(default_factory=lambda: Suite(()))
    decoder: Decoder = field(default_factory=lambda: Decoder(1, 1))
    shared_seconds: float = 0.0
    kinds: list[str] = field(default_factory=list[str])
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])

    def begin(self, suite: Suite, clips: Sequence[AskedClip], decoder: Decoder) -> None:
        """Now that a prompt is known, what budgets mean is known, too."""
        self.kinds = [question.kind for clip in clips for question in clip.questions]
        self.decoder = decoder
        self.suite = suite
        self.tallies = {entry.name: Tally() for entry in suite.entries}

    def see(self, clip: AskedClip) -> Look:
        from tokenprune.bench.world_benchmark.answering import see
        from tokenprune.hf.frontend.video import VideoClip

        start = time.perf_counter()
        frames = VideoClip.from_frames(render(clip.scene), FPS)
        seen = see(self.loaded, frames, [question.text for question in clip.questions])
        return Look(seen, time.perf_counter() - start)

    def ask(self, clips: Sequence[AskedClip], looks: Sequence[Look]) -> list[dict[str, Any]]:
        """Ask every entry the questions about some clips: for each what :meth:`count` counts, JSON-ready."""
        from tokenprune.bench.world_benchmark.answering import together

        seen = [look.clip for look in looks]
        shown = Shown(clips, seen, together(self.loaded, seen))
        plain: list[list[str]] = []
        asked: list[dict[str, Any]] = [
            {"clip": clip.scene.seed, "seconds": look.seconds, "rows": {}} for clip, look in zip(clips, looks)
        ]
        spent: dict[str, list[int]] = {}
        for entry in self.suite.entries:
            start = time.perf_counter()
            given = self._answers(entry, shown, spent)
            seconds = time.perf_counter() - start
            texts = [[normalised(text) for text in each.texts] for each in given]
            plain = plain or texts
            spent[entry.name] = [_spend(each.budgets, self.decoder) for each in given]
            for place, (clip, each) in enumerate(zip(clips, given)):
                tally = Tally(
                    outcomes="".join(judged(begun, q.answer) for begun, q in zip(each.begun, clip.questions)),
                    agreed=sum(text == other for text, other in zip(texts[place], plain[place])),
                    budgets=sum(each.budgets),
                    retained=sum(each.retained),
                    seconds=seconds * len(clip.questions) / shown.questions,
                )
                asked[place]["rows"][entry.name] = asdict(tally)
        return asked

    def count(self, asked: Mapping[str, Any]) -> None:
        """Count what was answered about one clip, now or in an earlier run."""
        self.shared_seconds += asked["seconds"]
        for name, tally in self.tallies.items():
            tally.add(Tally(**asked["rows"][name]))

    def _answers(self, entry: Entry, shown: Shown, spent: Mapping[str, Sequence[int]]) -> list[Answers]:
        """What it answers about each clip; one call for all, where the pipeline does not depend on the clip."""
        from tokenprune.bench.world_benchmark.answering import answer
        from tokenprune.bench.world_benchmark.pressed import answer_pressed

        seeds = [clip.scene.seed for clip in shown.clips]
        match entry:
            case Plain(sees=sees):
                return shown.split(answer(self.loaded, shown.all if sees else shown.all.unseen()))
            case Pressed(pipeline=pipeline):
                return [answer_pressed(self.loaded, seen, pipeline) for seen in shown.each]
            case Fixed(reseeded=False):
                return shown.split(answer(self.loaded, shown.all, entry.pipeline, entry.positions))
            case Fixed():
                pipelines = [entry.pipeline_for(seed) for seed in seeds]
            case Matched(method=method, to=other):
                depth = self.decoder.depth
                pipelines = [spending(method, spend, depth, seed) for spend, seed in zip(spent[other], seeds)]
        return [answer(self.loaded, seen, pipeline) for seen, pipeline in zip(shown.each, pipelines)]

    def row(self, entry: Entry, against: Sequence[str]) -> Row:
        """What was counted of an entry, and how it compares with others."""
        found = {name: compared_with(entry, name, self.suite.entries) for name in against}
        others = {name: self.tallies[other.name] for name, other in found.items() if other is not None}
        return row_of(entry, self.tallies[entry.name], self.kinds, others)


def _spend(budgets: Sequence[float], decoder: Decoder) -> int:
    """Visual tokens that all layers saw, which questions about one clip have in common."""
    spends = {round(budget * decoder.depth * decoder.tokens) for budget in budgets}
    if len(spends) != 1:
        raise TokenPruneError(
            f"a pipeline spent {sorted(spends)} on questions about one clip; only pipelines whose counts do not depend "
            "on the question can be compared at one budget"
        )
    return spends.pop()
