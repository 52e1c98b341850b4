# SPDX-License-Identifier: Apache-2.0
"""The benchmark: clip by clip, every pipeline on the same questions, so that little is held in memory at a time."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.bench.benchmark import BenchmarkRequest, BenchmarkResult, Journal, Progress, Row, Share
from tokenprune.bench.world.clip import HELD_OUT
from tokenprune.bench.world.palette import FPS
from tokenprune.bench.world.questions import KINDS
from tokenprune.bench.world.render import render
from tokenprune.bench.world.scene import WORLD_VERSION
from tokenprune.bench.world_benchmark.asked import SEEDS_APART, AskedClip, ask_world, normalised
from tokenprune.bench.world_benchmark.budgets import Decoder
from tokenprune.bench.world_benchmark.entries import Entry, Fixed, Matched, Plain, Suite, matched_to, spending
from tokenprune.bench.world_benchmark.suites import SUITES
from tokenprune.errors import InvalidValueError, TokenPruneError
from tokenprune.messages import not_one_of, shown

if TYPE_CHECKING:
    from tokenprune.bench.world_benchmark.answering import Answers, SeenClip
    from tokenprune.hf.frontend.family import Family, Loaded

PLAIN = "plain"
BLIND = "blind"


@dataclass(frozen=True)
class WorldBenchmark:
    """Held-out questions about the small world, asked of a family's model (a
    :class:`tokenprune.bench.benchmark.Benchmark`).

    >>> from tokenprune_qwen25vl.family import QWEN25VL
    >>> WorldBenchmark(QWEN25VL).suites
    ('table', 'sweep', 'ablation')
    """

    family: Family

    @property
    def suites(self) -> Sequence[str]:
        """``table``, ``sweep``, ``ablation``."""
        return tuple(SUITES)

    def run(self, request: BenchmarkRequest, progress: Progress, journal: Journal | None = None) -> BenchmarkResult:
        """Ask every entry every question; a piece of the journal is a clip.

        Raises:
            ModelLoadError: the model cannot be loaded.
            NoAdapterError: it is none of the family.
            InvalidValueError: an unknown suite, a pipeline named like a row of the benchmark's own, or one that does
                not fit the model's depth.
            ResultFileError: the journal is of another run.
        """
        if request.suite is not None and request.suite not in SUITES:
            raise InvalidValueError(not_one_of("suite", SUITES, request.suite))
        from tokenprune.hf.frontend.loading import load

        loaded = load(self.family, request.model, request.device, request.dtype, request.attn)
        clips = ask_world(request.questions, request.seed)
        run = _Run(loaded)
        first = run.see(clips[0])
        depth = loaded.model.config.get_text_config().num_hidden_layers
        run.begin(request, clips, Decoder(len(first.clip.features), depth))
        known = {} if journal is None else _known(journal, _setting(self.family, request, clips, run))
        for done, clip in enumerate(clips):
            progress(done, len(clips))
            if clip.scene.seed in known:
                run.count(known[clip.scene.seed])
                continue
            asked = run.ask(clip, run.see(clip) if done else first)
            if journal is not None:
                journal.add(asked)
            run.count(asked)
        progress(len(clips), len(clips))
        return BenchmarkResult(
            benchmark="world",
            setting=_setting(self.family, request, clips, run),
            rows=[run.row(entry) for entry in run.suite.entries],
            unreachable=run.suite.unreachable,
            versions=_versions(),
        )


def build_suite(request: BenchmarkRequest, decoder: Decoder) -> Suite:
    """The entries of a request, the plain model first.

    Raises:
        InvalidValueError: two entries have one name, or a pipeline does not fit the depth.
    """
    suite = Suite(()) if request.suite is None else SUITES[request.suite](decoder)
    entries: list[Entry] = [Plain(PLAIN), *([Plain(BLIND, sees=False)] if request.blind else [])]
    for name, pipeline in request.pipelines.items():
        pipeline.layers(decoder.depth)
        fixed = Fixed(name, name, pipeline)
        entries += matched_to(fixed) if request.matched else [fixed]
    entries += suite.entries
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidValueError(f"two rows are named {shown(twice[0])}; give the pipeline another name")
    return Suite(tuple(entries), suite.unreachable)


def _known(journal: Journal, setting: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """Clip -> what was answered about it in an earlier run, which must have been of the same setting."""
    for name, value in setting.items():
        if not name.endswith("seconds"):
            journal.require(name, value)
    return {entry["clip"]: entry for entry in journal.entries}


@dataclass(frozen=True, eq=False)
class _Look:
    """A clip that was looked at, and the time it took."""

    clip: SeenClip
    seconds: float


@dataclass(eq=False)
class _Tally:
    """What is counted of one entry, on one clip or on all."""

    right: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    agreed: int = 0
    budgets: list[float] = field(default_factory=list[float])
    retained: list[float] = field(default_factory=list[float])
    seconds: float = 0.0

    def add(self, other: _Tally) -> None:
        """Count what was counted elsewhere, too."""
        for kind, right in other.right.items():
            self.right[kind] += right
        self.agreed += other.agreed
        self.budgets += other.budgets
        self.retained += other.retained
        self.seconds += other.seconds


@dataclass(eq=False)
class _Run:
    """One model under examination."""

    loaded: Loaded
    suite: Suite = field(default_factory=lambda: Suite(()))
    decoder: Decoder = field(default_factory=lambda: Decoder(1, 1))
    shared_seconds: float = 0.0
    asked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    tallies: dict[str, _Tally] = field(default_factory=dict[str, _Tally])

    def begin(self, request: BenchmarkRequest, clips: Sequence[AskedClip], decoder: Decoder) -> None:
        """Now that a prompt is known, what budgets mean is known, too."""
        for question in (question for clip in clips for question in clip.questions):
            self.asked[question.kind] += 1
        self.decoder = decoder
        self.suite = build_suite(request, decoder)
        self.tallies = {entry.name: _Tally() for entry in self.suite.entries}

    def see(self, clip: AskedClip) -> _Look:
        from tokenprune.bench.world_benchmark.answering import see
        from tokenprune.hf.frontend.video import VideoClip

        start = time.perf_counter()
        frames = VideoClip.from_frames(render(clip.scene), FPS)
        seen = see(self.loaded, frames, [question.text for question in clip.questions])
        return _Look(seen, time.perf_counter() - start)

    def ask(self, clip: AskedClip, look: _Look) -> dict[str, Any]:
        """Ask every entry the questions about one clip: what :meth:`count` counts, JSON-ready."""
        spent: dict[str, int] = {}
        plain: list[str] = []
        rows: dict[str, dict[str, Any]] = {}
        for entry in self.suite.entries:
            start = time.perf_counter()
            given = self._answers(entry, look.clip, spent, clip.scene.seed)
            tally = _Tally(seconds=time.perf_counter() - start)
            texts = [normalised(text) for text in given.texts]
            plain = plain or texts
            spent[entry.name] = _spend(given.budgets, self.decoder)
            tally.budgets += given.budgets
            tally.retained += given.retained
            tally.agreed += sum(text == other for text, other in zip(texts, plain))
            for question, text in zip(clip.questions, texts):
                tally.right[question.kind] += text == normalised(question.answer)
            rows[entry.name] = asdict(tally)
        return {"clip": clip.scene.seed, "seconds": look.seconds, "rows": rows}

    def count(self, asked: Mapping[str, Any]) -> None:
        """Count what was answered about one clip, now or in an earlier run."""
        self.shared_seconds += asked["seconds"]
        for name, tally in self.tallies.items():
            tally.add(_Tally(**asked["rows"][name]))

    def _answers(self, entry: Entry, seen: SeenClip, spent: Mapping[str, int], seed: int) -> Answers:
        from tokenprune.bench.world_benchmark.answering import answer

        match entry:
            case Plain(sees=sees):
                return answer(self.loaded, seen if sees else seen.unseen())
            case Fixed(pipeline=pipeline, positions=positions):
                return answer(self.loaded, seen, pipeline, positions)
            case Matched(method=method, to=other):
                pipeline = spending(method, spent[other], self.decoder.depth, seed)
                return answer(self.loaded, seen, pipeline)

    def row(self, entry: Entry) -> Row:
        """What was counted of an entry."""
        tally = self.tallies[entry.name]
        total = sum(self.asked.values())
        return Row(
            name=entry.name,
            series=entry.name if isinstance(entry, Plain) else entry.series,
            accuracy=Share(sum(tally.right.values()), total),
            kinds={kind: Share(tally.right[kind], asked) for kind, asked in self.asked.items() if asked},
            agreement=Share(tally.agreed, total),
            budget=sum(tally.budgets) / total,
            retained=sum(tally.retained) / total,
            seconds=tally.seconds,
            pipeline=entry.pipeline.to_dict() if isinstance(entry, Fixed) else None,
            notes=_notes(entry),
        )


def _spend(budgets: Sequence[float], decoder: Decoder) -> int:
    """Visual tokens that all layers saw, which questions about one clip have in common."""
    spends = {round(budget * decoder.depth * decoder.tokens) for budget in budgets}
    if len(spends) != 1:
        raise TokenPruneError(
            f"a pipeline spent {sorted(spends)} on questions about one clip; only pipelines whose counts do not depend "
            "on the question can be compared at one budget"
        )
    return spends.pop()


def _notes(entry: Entry) -> dict[str, Any]:
    match entry:
        case Plain(sees=sees):
            return {} if sees else {"visual_features": "zero"}
        case Fixed(positions=positions, nominal=nominal):
            return {"positions": positions, "nominal_budget": nominal}
        case Matched(to=other, nominal=nominal):
            return {"spends_as": other, "nominal_budget": nominal, "seed": "the clip's"}


def _setting(family: Family, request: BenchmarkRequest, clips: Sequence[AskedClip], run: _Run) -> dict[str, Any]:
    import torch

    return {
        "model": "shipped" if request.model is None else request.model,
        "weights_sha256": _fingerprint(family, request.model),
        "dtype": str(run.loaded.model.dtype).removeprefix("torch."),
        "device": run.loaded.model.device.type,
        "attention": run.loaded.model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "suite": request.suite,
        "questions": sum(run.asked.values()),
        "questions_by_kind": run.asked,
        "clips": len(clips),
        "seed": request.seed,
        "first_clip": HELD_OUT + request.seed * SEEDS_APART,
        "last_clip": clips[-1].scene.seed,
        "visual_tokens": run.decoder.tokens,
        "decoder_layers": run.decoder.depth,
        "shared_seconds": run.shared_seconds,
    }


def _fingerprint(family: Family, model: str | None) -> str | None:
    """Of the weights, where they are one file on this machine."""
    from tokenprune.hf.frontend.loading import shipped

    weights = (shipped(family) if model is None else Path(model)) / "model.safetensors"
    if not weights.is_file():
        return None
    digest = hashlib.sha256()
    with open(weights, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    import torch
    import transformers

    import tokenprune

    return {
        "tokenprune": tokenprune.__version__,
        "world": str(WORLD_VERSION),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }
