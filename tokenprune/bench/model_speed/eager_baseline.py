# SPDX-License-Identifier: Apache-2.0
"""What published code does: eager attention whose weights are put out, then a mask; nothing is removed."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenprune.bench.model_speed.prompt import SpeedPrompt
from tokenprune.bench.model_speed.runs import Bench, Facts, timed_answer
from tokenprune.bench.speed.figures import Sample
from tokenprune.budget import Budget
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.frontend.family import Parts
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.pipeline import Pipeline

Cut = tuple[int, Budget]
"""After which layer, and how many visual tokens stay."""


def cuts_of(pipeline: Pipeline, depth: int, readable: Collection[int] | None = None) -> list[Cut]:
    """The pipeline's :class:`AttnPrune` that cut video tokens; without any there is no eager baseline either.

    Only their layers and budgets count: the eager baseline has scores of its own, and one ranking.

    Args:
        pipeline: whose cuts are meant.
        depth: number of decoder layers.
        readable: those that have attention; None: all.
    """
    found: list[Cut] = []
    for stage in pipeline.stages(depth, readable):
        operator = stage.operator
        if isinstance(operator, AttnPrune) and stage.layer is not None and "video" in stage.modalities:
            found.append((stage.layer, operator.budget))
    return found


def run_eager_baseline(bench: Bench, cuts: Sequence[Cut]) -> tuple[Sample, Facts]:
    """One answer by the eager baseline. Mergers before the LLM are not applied: the whole prompt is in every layer."""
    sample, _, kv_bytes = timed_answer(bench, masked_by_attention(bench.parts, bench.prompt, cuts))
    return sample, Facts(bench.unshortened, bench.prompt.length, kv_bytes)


@contextmanager
def masked_by_attention(parts: Parts, prompt: SpeedPrompt, cuts: Sequence[Cut]) -> Generator[Masking, None, None]:
    """While this is open every prefill of the prompt is pruned by a mask, in eager attention.

    The weights ``(B, heads, L, L)`` of the cuts' layers are read from what their attention modules put out; those of
    the other layers are made, as eager attention does, and let go of at once, though asking the library for
    ``output_attentions`` would keep them all. Layers of linear attention have no weights that a mask could act on:
    their states take in what is hidden from the others.

    Args:
        parts: the model; its decoder's attention is what it was afterwards.
        prompt: where the visual tokens are, and the text after them.
        cuts: at increasing layers.
    """
    before = parts.text.config._attn_implementation
    masking = Masking(prompt)
    handles: list[Any] = []
    parts.text.set_attn_implementation("eager")
    try:
        for layer, budget in cuts:
            attention = parts.text.layers[layer].self_attn
            handles.append(attention.register_forward_hook(masking.reader(budget)))
        for layer in parts.text.layers[min(layer for layer, _ in cuts) + 1 :]:
            if hasattr(layer, "self_attn"):
                handles.append(layer.register_forward_pre_hook(masking.hide, with_kwargs=True))
        yield masking
    finally:
        for handle in handles:
            handle.remove()
        parts.text.set_attn_implementation(before)


class Masking:
    """Which columns are hidden from the layers after a cut.

    Args:
        prompt: where the visual tokens are.
    """

    def __init__(self, prompt: SpeedPrompt) -> None:
        self.prompt = prompt
        self.hidden: Tensor | None = None
        """``(B, L)`` bool; None before the first cut."""
        self._mask: tuple[Tensor, Tensor, Tensor] | None = None

    def reader(self, budget: Budget) -> Any:
        """A hook for an attention module that cuts by the weights of the prompt's prefill."""

        def read(module: nn.Module, args: Any, output: Any) -> None:
            weights = output[1]
            if weights is None:
                raise UnsupportedModeError("eager attention put out no weights")
            if weights.shape[-2] == self.prompt.length:
                self._cut(weights, budget)

        return read

    def hide(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """A hook before a later layer that masks what is hidden, in the prefill and in every step after it."""
        if self.hidden is None:
            return None
        mask = kwargs["attention_mask"]
        if mask is None:
            raise UnsupportedModeError("eager attention was given no mask")
        if self._mask is None or self._mask[0] is not mask or self._mask[1] is not self.hidden:
            columns = F.pad(self.hidden, (0, mask.shape[-1] - self.hidden.shape[1]))
            masked = mask.masked_fill(columns[:, None, None], torch.finfo(mask.dtype).min)
            self._mask = (mask, self.hidden, masked)
        return args, {**kwargs, "attention_mask": self._mask[2]}

    def _cut(self, weights: Tensor, budget: Budget) -> None:
        """Score by the largest weight that any head gives in any text row after the clip; keep the best."""
        visual = self.prompt.columns
        scores = weights[:, :, self.prompt.after :, visual].amax(dim=(1, 2))
        hidden = torch.zeros(self.prompt.ids.shape, dtype=torch.bool, device=scores.device)
        left = scores.shape[1]
        if self.hidden is not None:
            scores = scores.masked_fill(self.hidden[:, visual], -1)  # weights are at least 0
            left = int((~self.hidden[0, visual]).sum())
        kept = scores.argsort(dim=1, descending=True, stable=True)[:, : budget.count(left)]
        hidden[:, visual] = True
        hidden.scatter_(1, visual[kept], False)
        self.hidden = hidden
