# SPDX-License-Identifier: Apache-2.0
"""More frames with Cover and attention mass, or fewer frames unpruned, at one budget of LLM tokens?

python docs/examples/world_frames.py --seed 87 --questions 300 --out docs/benchmarks/frames.json

Clips of the small world last 8 seconds and have 16, 32 or 64 frames; an event lasts two of them. Of each clip so many
frames are sampled, evenly. Some numbers of frames are read unpruned; more frames are pruned to as many tokens as those
have. Every question is asked alone, from frames to answer, so that its time is that of a user who asks one question.
A call that was interrupted goes on with the next length of clips.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import tokenprune as tp
from tokenprune.bench.benchmark import Share
from tokenprune.bench.paired import Paired
from tokenprune.bench.world.palette import FPS, FRAMES, GRID, SLOT
from tokenprune.bench.world.questions import KINDS, SMALL_KINDS
from tokenprune.bench.world.render import render
from tokenprune.bench.world_benchmark.answering import answer, see
from tokenprune.bench.world_benchmark.asked import STRICT, WRONG, AskedClip, ask_world, judged
from tokenprune.bench.world_benchmark.setting import library_versions
from tokenprune.cli.eval import find_benchmark
from tokenprune.files import write_text
from tokenprune.hf.frontend.loading import load
from tokenprune.hf.frontend.video import VideoClip
from tokenprune.hf.frontend.video.sampling import spread

SECONDS = FRAMES // FPS
"""That a clip lasts, however many frames it has: the model's positions of time are seconds, and it knows no later."""


@dataclass
class Row:
    """So many frames of each clip, and the tokens that the LLM sees of them; one entry a question."""

    frames: int
    tokens: int
    outcomes: list[str] = field(default_factory=list[str])
    encode: list[float] = field(default_factory=list[float])
    answer: list[float] = field(default_factory=list[float])

    @property
    def encoded(self) -> int:
        return visual_tokens(self.frames)

    @property
    def pipeline(self) -> tp.Pipeline | None:
        return None if self.tokens == self.encoded else tp.Pipeline([tp.Cover(keep=self.tokens)], mass="sizes")

    @property
    def name(self) -> str:
        return f"{self.frames} frames" + (f" as {self.tokens} tokens" if self.pipeline else "")

    @property
    def seconds(self) -> float:
        """From frames to answer, median."""
        return statistics.median(a + b for a, b in zip(self.encode, self.answer, strict=True))

    @property
    def strict(self) -> list[bool]:
        return [outcome == STRICT for outcome in self.outcomes]


def visual_tokens(frames: int) -> int:
    """That the encoder makes of so many frames."""
    return frames // SLOT * GRID * GRID


def rows_of(frames: Sequence[int], budgets: Sequence[int]) -> list[Row]:
    """Every number of frames unpruned, and pruned to the tokens of each smaller one among ``budgets``."""
    counts = [(n, tokens) for n in frames for tokens in (n, *(b for b in budgets if b < n))]
    return [Row(n, visual_tokens(tokens)) for n, tokens in counts]


def ask(rows: Sequence[Row], clips: Sequence[AskedClip], jobs: int) -> None:
    """Fill the rows: every question of every clip, clips shared among so many processes."""
    asked = partial(ask_clip, [(row.frames, row.tokens) for row in rows])
    with ProcessPoolExecutor(jobs, get_context("spawn")) if jobs > 1 else nullcontext() as pool:
        for number, answered in enumerate((pool.map if pool else map)(asked, clips)):
            print(f"\r{number + 1} of {len(clips)} clips", end="", flush=True)
            for row, told in zip(rows, answered, strict=True):
                row.outcomes += told.outcomes
                row.encode += told.encode
                row.answer += told.answer
    print()


def ask_clip(counts: Sequence[tuple[int, int]], clip: AskedClip) -> list[Row]:
    """Rows of so many frames and tokens, with what was answered about one clip."""
    loaded, rows = model(), [Row(*count) for count in counts]
    video, length = render(clip.scene), clip.scene.frames
    for question in clip.questions:
        for frames in dict.fromkeys(row.frames for row in rows):
            at = spread(length, frames)
            sampled = VideoClip(video[list(at)], at, length, length / SECONDS)
            seen, encoding = timed(see, loaded, sampled, [question.text])
            for row in (row for row in rows if row.frames == frames):
                answers, answering = timed(answer, loaded, seen, row.pipeline)
                row.outcomes.append(judged(answers.begun[0], question.answer))
                row.encode.append(encoding)
                row.answer.append(answering)
    return rows


@cache
def model() -> Any:
    torch.set_num_threads(1)
    return load(find_benchmark("world").family, None, None, None, None)  # type: ignore[attr-defined]


def timed(call: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call(*given)
    return result, time.perf_counter() - start


def summary(row: Row, rows: Sequence[Row], kinds: Sequence[str]) -> dict[str, Any]:
    """What a row got right and in which time.

    A pruned one is compared with unpruned ones: of its tokens, of the most frames that take no longer, of its frames.
    """
    strict, unpruned = row.strict, [other for other in rows if other.pipeline is None]
    found: dict[str, Any] = {
        "row": row.name,
        "frames": row.frames,
        "encoded_tokens": row.encoded,
        "llm_tokens": row.tokens,
        "word": share(outcome != WRONG for outcome in row.outcomes),
        "strict": share(strict),
        "small": share(right for right, kind in zip(strict, kinds) if kind in SMALL_KINDS),
        "broad": share(right for right, kind in zip(strict, kinds) if kind not in SMALL_KINDS),
        "kinds": {kind: share(right for right, other in zip(strict, kinds) if other == kind) for kind in KINDS},
        "median_seconds": {
            "encode": statistics.median(row.encode),
            "answer": statistics.median(row.answer),
            "total": row.seconds,
        },
    }
    if row.pipeline is not None:
        no_slower = [other for other in unpruned if other.seconds <= row.seconds]
        others = {
            "at_equal_tokens": [other for other in unpruned if other.tokens == row.tokens],
            "at_equal_time": sorted(no_slower, key=lambda other: other.frames),
            "at_equal_frames": [other for other in unpruned if other.frames == row.frames],
        }
        found |= {at: against(row, those[-1], kinds) for at, those in others.items() if those}
    return found


def share(right: Iterable[bool]) -> dict[str, Any] | None:
    marks = list(right)
    return Share(sum(marks), len(marks)).to_dict() if marks else None


def against(row: Row, other: Row, kinds: Sequence[str]) -> dict[str, Any]:
    """Exact paired tests of whole answers: of all questions, and of those whose evidence is small or broad."""
    pairs = list(zip(row.strict, other.strict, [kind in SMALL_KINDS for kind in kinds], strict=True))
    parts = {"all": pairs, "small": [p for p in pairs if p[2]], "broad": [p for p in pairs if not p[2]]}
    tests = {name: Paired.of([p[0] for p in part], [p[1] for p in part]).to_dict() for name, part in parts.items()}
    return {"row": other.name, **tests}


def known(out: Path | None, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of an earlier, interrupted call, which must have asked the same."""
    if out is None or not out.exists():
        return []
    told = json.loads(out.read_text(encoding="utf-8"))
    if any(told.get(name) != value for name, value in setting.items()):
        raise SystemExit(f"{out} asked something else: {setting} was wanted")
    return told["runs"]


def numbers(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip-frames", type=numbers, default=[16, 32, 64], help="that clips have, one run each")
    parser.add_argument("--frames", type=numbers, default=[8, 16, 32, 48, 64], help="frames that are sampled")
    parser.add_argument("--budgets", type=numbers, default=[8, 16], help="as many tokens as so many frames unpruned")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=87)
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not set(options.budgets) <= set(options.frames):
        parser.error("every one of --budgets must be one of --frames, to be compared with")
    setting = {name: getattr(options, name) for name in ("seed", "questions", "frames", "budgets")}
    runs = known(options.out, setting)
    for clip_frames in sorted(set(options.clip_frames) - {run["clip_frames"] for run in runs}):
        rows = rows_of([n for n in options.frames if n <= clip_frames], options.budgets)
        clips = ask_world(options.questions, options.seed, clip_frames)
        ask(rows, clips, options.jobs)
        kinds = [question.kind for clip in clips for question in clip.questions]
        told = [summary(row, rows, kinds) for row in rows]
        runs.append({"clip_frames": clip_frames, "jobs": options.jobs, "rows": told})
        result = {**setting, "clip_seconds": SECONDS, "small_kinds": SMALL_KINDS}
        if options.out is not None:
            text = json.dumps({**result, "runs": runs, "versions": library_versions()}, indent=2)
            write_text(options.out, text + "\n")
        for row in told:
            print(f"{row['row']}: {row['strict']['value']:.1%} right, {row['median_seconds']['total']:.2f} s")


if __name__ == "__main__":
    main()
