# SPDX-License-Identifier: Apache-2.0
"""What outliers that mean nothing cost Cover on the small world, and what a floor gives AttnPrune.

python docs/examples/world_outliers.py --seed 331 --questions 500 --out docs/benchmarks/world-outliers.json

Only what Cover compares is disturbed; what the model reads of the tokens it keeps is as the vision encoder left it. So
the figures say what the choice of tokens costs. Every clip is encoded once; an answer is right if all of it is.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

import tokenprune as tp
from tokenprune.bench.benchmark import Share
from tokenprune.bench.world.palette import FPS
from tokenprune.bench.world.render import render
from tokenprune.bench.world_benchmark.answering import answer, see
from tokenprune.bench.world_benchmark.asked import ask_world, normalised
from tokenprune.cli.eval import find_benchmark
from tokenprune.files import write_text
from tokenprune.hf.frontend.loading import load
from tokenprune.hf.frontend.video import VideoClip

PERCENT = 5
"""How many of a hundred tokens are disturbed."""
BUDGETS = (0.05, 0.1)


def noise(features: Tensor, generator: torch.Generator) -> Tensor:
    """Some tokens are moved in a random direction each, twice as far as the features spread."""
    return _moved(features, torch.randn(_count(features), features.shape[1], generator=generator), 2.0, generator)


def registers(features: Tensor, generator: torch.Generator) -> Tensor:
    """Some tokens are moved ten times as far as the features spread, all in nearly one direction."""
    common = torch.randn(1, features.shape[1], generator=generator)
    own = torch.randn(_count(features), features.shape[1], generator=generator)
    return _moved(features, common + 0.1 * own, 10.0, generator)


def channels(features: Tensor, generator: torch.Generator) -> Tensor:
    """Three channels are ten times as large."""
    massive = features.clone()
    massive[:, torch.randperm(features.shape[1], generator=generator)[:3]] *= 10
    return massive


DISTURBANCES: dict[str, Callable[[Tensor, torch.Generator], Tensor] | None] = {
    "clean": None,
    "noise": noise,
    "registers": registers,
    "channels": channels,
}


def _count(features: Tensor) -> int:
    return round(len(features) * PERCENT / 100)


def _moved(features: Tensor, directions: Tensor, by: float, generator: torch.Generator) -> Tensor:
    spread = (features - features.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    where = torch.randperm(len(features), generator=generator)[: len(directions)]
    moved = features.clone()
    moved[where] += by * spread * directions / directions.norm(dim=1, keepdim=True)
    return moved


@dataclass(frozen=True)
class Disturbed:
    """Cover's plan for disturbed features, applied to the features as they are."""

    cover: tp.Cover
    kind: str
    seed: int
    mass: ClassVar[str] = "sizes"

    @property
    def budget(self) -> tp.Budget:
        return self.cover.budget

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        disturb = DISTURBANCES[self.kind]
        generator = torch.Generator().manual_seed(self.seed)
        features = tokens.features if disturb is None else disturb(tokens.features.float().cpu(), generator)
        return self.cover.plan(replace(tokens, features=features.to(tokens.features.device)))


def rows(seed: int) -> dict[str, tp.Pipeline]:
    """What is asked about a clip; Cover's disturbances are drawn from ``seed``."""
    found: dict[str, tp.Pipeline] = {}
    for ratio in BUDGETS:
        for kind in DISTURBANCES:
            for outliers in (1.0, tp.Cover.outliers):
                cover = tp.Cover(keep_ratio=ratio, outliers=outliers)
                found[f"Cover {ratio:.0%}, outliers={outliers}, {kind}"] = tp.Pipeline([Disturbed(cover, kind, seed)])
    for floor in (0.0, 0.5):
        pruned = tp.AttnPrune(layer=0.36, keep=57, floor=floor)  # half of all tokens, averaged over eight layers
        for mass in (None, "sizes"):
            found[f"AttnPrune 50%, floor={floor}, mass={mass}"] = tp.Pipeline([pruned], mass=mass)
    return found


def ask(questions: int, seed: int) -> tuple[dict[str, list[bool]], list[str]]:
    """Row -> whether each answer is right; and the kind of each question."""
    loaded = load(find_benchmark("world").family, None, None, None, None)  # type: ignore[attr-defined]
    right: dict[str, list[bool]] = {}
    kinds: list[str] = []
    clips = ask_world(questions, seed)
    for number, clip in enumerate(clips):
        print(f"\r{number + 1} of {len(clips)} clips", end="", flush=True)
        frames = VideoClip.from_frames(render(clip.scene), FPS)
        seen = see(loaded, frames, [question.text for question in clip.questions])
        for name, pipeline in rows(clip.scene.seed).items():
            texts = answer(loaded, seen, pipeline).texts
            answers = zip(clip.questions, texts, strict=True)
            right.setdefault(name, []).extend(normalised(text) == normalised(q.answer) for q, text in answers)
        kinds += [question.kind for question in clip.questions]
    print()
    return right, kinds


def p_value(wins: int, losses: int) -> float:
    """Exact two-sided test of paired answers (McNemar): as unlikely a split by tosses of a coin."""
    total, most = wins + losses, max(wins, losses)
    return min(1.0, 2 * sum(math.comb(total, k) for k in range(most, total + 1)) / 2**total)


def compared(one: Sequence[bool], other: Sequence[bool]) -> dict[str, float]:
    """How often only the one, and only the other, is right."""
    wins = sum(a and not b for a, b in zip(one, other, strict=True))
    losses = sum(b and not a for a, b in zip(one, other, strict=True))
    return {"wins": wins, "losses": losses, "p": p_value(wins, losses)}


def summary(right: dict[str, list[bool]], kinds: list[str]) -> dict[str, Any]:
    """Shares with their intervals; each robust row against the exact one, each floor against none."""
    shares: dict[str, Any] = {}
    for name, answers in right.items():
        share, detail = Share(sum(answers), len(answers)), [a for a, kind in zip(answers, kinds) if kind == "detail"]
        shares[name] = {"right": share.value, "interval": share.interval, "detail": sum(detail) / len(detail)}
    pairs: dict[str, Any] = {}
    for name in right:
        for ours, theirs in ((f"outliers={tp.Cover.outliers}", "outliers=1.0"), ("floor=0.5", "floor=0.0")):
            if ours in name:
                pairs[name] = compared(right[name], right[name.replace(ours, theirs)])
    return {"rows": shares, "against": pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=331)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    right, kinds = ask(options.questions, options.seed)
    result = {"seed": options.seed, "questions": len(kinds), "percent_disturbed": PERCENT, **summary(right, kinds)}
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        write_text(options.out, text + "\n")


if __name__ == "__main__":
    main()
