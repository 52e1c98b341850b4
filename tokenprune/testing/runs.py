# SPDX-License-Identifier: Apache-2.0
"""Running a model, plain or pruned, with everything recorded that the laws of adapters speak about."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tokenprune.operator import AFTER_LAYER
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.operators.st_merge import STMerge
from tokenprune.operators.uniform import UniformSelect
from tokenprune.pipeline import Pipeline
from tokenprune.plan import TokenPlan
from tokenprune.runtime.report import Report
from tokenprune.runtime.session import attach
from tokenprune.scorers.rope_causal import RopeCausalScore
from tokenprune.testing.laws import require
from tokenprune.testing.observe import Seen, watched
from tokenprune.testing.prompts import VisualPrompt
from tokenprune.tokens import VisualTokens

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest of them, that counts as rounding in fp32."""


@dataclass(frozen=True, eq=False)
class Run:
    """One ``generate``: new tokens ``(B, n)``, logits ``(B, vocabulary)`` of each step, and what layers were given."""

    new: Tensor
    logits: list[Tensor]
    cache: Any
    seen: list[Seen]
    reports: Sequence[Report]

    @property
    def report(self) -> Report:
        """The only report."""
        require(len(self.reports) == 1, f"one prefill made {len(self.reports)} reports")
        return self.reports[0]


def generate(model: Any, decoder: nn.Module, prompt: VisualPrompt, pipeline: Pipeline | None, new: int) -> Run:
    """``new`` tokens, greedily, none of them a placeholder; ``pipeline=None`` is the model without a session."""
    from tokenprune.hf.release import cache_of  # laws of operators need no transformers

    session = nullcontext() if pipeline is None else attach(model, pipeline)
    with watched(layers_of(decoder)) as seen, session as attached, torch.no_grad():
        out = model.generate(
            **prompt.inputs,
            do_sample=False,
            num_beams=1,
            min_new_tokens=new,
            max_new_tokens=new,
            suppress_tokens=prompt.placeholders or None,
            output_logits=True,
            return_dict_in_generate=True,
        )
    reports = attached.reports if attached is not None else []
    return Run(out.sequences[:, prompt.length :], list(out.logits), cache_of(out), seen, reports)


def layers_of(decoder: nn.Module) -> list[nn.Module]:
    """The decoder's layers, in order."""
    return list(decoder.get_submodule("layers").children())


def middle_of(readable: Sequence[int], depth: int) -> int:
    """The readable layer nearest to the middle, the later one of two."""
    return min(readable, key=lambda layer: (abs(layer - depth // 2), -layer))


def pipelines(depth: int, images: bool, readable: Sequence[int]) -> dict[str, Pipeline]:
    """Pipelines that remove tokens before the LLM, after the first, a middle and the last layer, and at two places."""
    middle = middle_of(readable, depth)
    found = {
        "dropping": Pipeline([UniformSelect(keep_ratio=0.5)]),
        "merging": Pipeline([STMerge(keep_ratio=0.4, min_tokens=2)]),
        "first layer": Pipeline([AttnPrune(layer=readable[0], keep_ratio=0.4)]),
        "last layer": Pipeline([AttnPrune(layer=readable[-1], keep=2)]),
        "both": Pipeline([STMerge(keep_ratio=0.6, min_tokens=2), AttnPrune(layer=middle, keep_ratio=0.5)]),
        "merging inside": Pipeline([PairsAt(0)]),
    }
    if images:
        found["images"] = Pipeline([AttnPrune(layer=middle, keep_ratio=0.4, modalities=("video", "image"))])
    return found


def keep_all_pipelines(depth: int, readable: Sequence[int]) -> list[Pipeline]:
    """Pipelines that keep every token, in several ways."""
    return [
        Pipeline(),
        Pipeline([UniformSelect(keep_ratio=1.0), AttnPrune(layer=middle_of(readable, depth), keep_ratio=1.0)]),
        Pipeline([STMerge(keep=10**9), AttnPrune(layer=readable[0], keep=10**9)]),
    ]


def require_close(found: Tensor, wanted: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Require equal tensors, to rounding."""
    require(found.shape == wanted.shape, f"{what} have shape {tuple(found.shape)}, not {tuple(wanted.shape)}")
    worst = float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
    require(worst < tolerance, f"{what} differ by {worst:.1e} of the largest")


@dataclass(frozen=True, eq=False)
class TokenWitness:
    """A merger that keeps everything and remembers what it was shown."""

    shown: list[VisualTokens]

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        self.shown.append(tokens)
        return TokenPlan.identity(len(tokens), tokens.features.device)


@dataclass(frozen=True, eq=False)
class ScoreWitness:
    """The layer's own attention as a scorer that remembers its scores."""

    scores: list[Tensor]

    def score(self, tokens: VisualTokens) -> Tensor:
        self.scores.append(RopeCausalScore().score(tokens))
        return self.scores[-1]


@dataclass(frozen=True)
class PairsAt:
    """Merges the hidden states of each video's tokens two by two, after a layer."""

    layer: int
    site: ClassVar[str] = AFTER_LAYER
    needs: ClassVar[tuple[str, ...]] = ()
    modalities: ClassVar[tuple[str, ...]] = ("video",)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        pairs = [
            torch.arange(span.slice.stop - span.slice.start).div(2, rounding_mode="floor") for span in tokens.spans
        ]
        counts = [int(pair[-1]) + 1 for pair in pairs]
        homes = torch.cat([pair + sum(counts[:number]) for number, pair in enumerate(pairs)])
        starts = [span.slice.start + 2 * torch.arange(count) for span, count in zip(tokens.spans, counts)]
        device = tokens.features.device
        return TokenPlan(torch.cat(starts).to(device), homes.to(device))


@dataclass(frozen=True)
class Failing:
    """A merger that fails."""

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        raise ArithmeticError("this merger always fails")
