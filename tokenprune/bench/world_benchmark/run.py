# SPDX-License-Identifier: Apache-2.0
"""The benchmark: clip by clip, every pipeline on the same questions, so that little is held in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenprune.bench.benchmark import BenchmarkRequest, BenchmarkResult, Journal, Progress
from tokenprune.bench.world_benchmark.asked import ask_world
from tokenprune.bench.world_benchmark.asking import Run, batches
from tokenprune.bench.world_benchmark.budgets import Decoder
from tokenprune.bench.world_benchmark.entries import Entry, Plain, Suite, matched_to
from tokenprune.bench.world_benchmark.methods import grid_suite, named_suite
from tokenprune.bench.world_benchmark.setting import describe_setting, library_versions
from tokenprune.bench.world_benchmark.suites import SUITES
from tokenprune.errors import InvalidValueError
from tokenprune.messages import not_one_of, shown

if TYPE_CHECKING:
    from tokenprune.hf.frontend.family import Family

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
            InvalidValueError: an unknown suite or method, a pipeline named like a row of the benchmark's own, one that
                does not fit the model's depth, or nothing to compare with.
            ResultFileError: the journal is of another run.
        """
        if request.suite is not None and request.suite not in SUITES:
            raise InvalidValueError(not_one_of("suite", SUITES, request.suite))
        from tokenprune.hf.frontend.loading import load

        loaded = load(self.family, request.model, request.device, request.dtype, request.attn)
        clips = ask_world(request.questions, request.seed)
        run = Run(loaded)
        first = run.see(clips[0])
        depth = loaded.model.config.get_text_config().num_hidden_layers
        decoder = Decoder(len(first.clip.features[0]), depth)
        run.begin(build_suite(request, decoder), clips, decoder)
        setting = describe_setting(self.family, request, clips, loaded, run.decoder)
        known = {} if journal is None else _known(journal, setting)
        done = 0
        for batch in batches(clips, known):
            progress(done, len(clips))
            asked = [known[clip.scene.seed] for clip in batch if clip.scene.seed in known]
            if not asked:
                asked = run.ask(batch, [run.see(clip) if done or place else first for place, clip in enumerate(batch)])
                for about_one in asked:
                    if journal is not None:
                        journal.add(about_one)
            for about_one in asked:
                run.count(about_one)
            done += len(batch)
        progress(len(clips), len(clips))
        return BenchmarkResult(
            benchmark="world",
            setting={**setting, "shared_seconds": run.shared_seconds},
            rows=[run.row(entry, request.against) for entry in run.suite.entries],
            unreachable=run.suite.unreachable,
            versions=library_versions(),
        )


def build_suite(request: BenchmarkRequest, decoder: Decoder) -> Suite:
    """The entries of a request, the plain model first.

    Raises:
        InvalidValueError: two entries have one name, a pipeline does not fit the depth, or a row is to be compared with
            one that is not there.
    """
    entries: list[Entry] = [Plain(PLAIN), *([Plain(BLIND, sees=False)] if request.blind else [])]
    for name, pipeline in request.pipelines.items():
        pipeline.layers(decoder.depth)
        for fixed in named_suite(name, pipeline, request.masses):
            entries += matched_to(fixed) if request.matched and fixed.name == name else [fixed]
    suite = Suite(tuple(entries))
    if request.methods is not None:
        suite += grid_suite(request.methods, decoder)
    if request.suite is not None:
        suite += SUITES[request.suite](decoder)
    names = [entry.name for entry in suite.entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidValueError(f"two rows are named {shown(twice[0])}; give the pipeline another name")
    series = [entry.series for entry in suite.entries if not isinstance(entry, Plain)]
    for name in request.against:
        if name not in (*names, *series):
            raise InvalidValueError(not_one_of("against", dict.fromkeys((*names, *series)), name))
    return suite


def _known(journal: Journal, setting: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """Clip -> what was answered about it in an earlier run, which must have been of the same setting."""
    for name, value in setting.items():
        journal.require(name, value)
    return {entry["clip"]: entry for entry in journal.entries}
