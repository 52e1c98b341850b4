# SPDX-License-Identifier: Apache-2.0
"""What a test of an adapter has to provide, and what its laws share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
from torch import Tensor, nn

from tokenprune.carried import Carried
from tokenprune.operator import modalities_of
from tokenprune.pipeline import Pipeline
from tokenprune.testing.laws import naming
from tokenprune.testing.masking import Removal, masked_logits
from tokenprune.testing.prompts import VisualPrompt
from tokenprune.testing.runs import (
    TOLERANCE,
    Run,
    generate,
    layers_of,
    pipelines,
)
from tokenprune.testing.same import exact_count


def adapter_law(test: Callable[..., None]) -> Callable[..., None]:
    """What fails inside is reported as a :class:`LawBrokenError` that carries the test's name."""

    @functools.wraps(test)
    def named(*args: Any, **kwargs: Any) -> None:
        with naming(test.__name__.removeprefix("test_").replace("_", "-")):
            test(*args, **kwargs)

    return named


class AdapterCase:
    """Factories to fill in, and flags; :class:`tokenprune.testing.AdapterConformance` describes them."""

    rows: ClassVar[int] = 2
    images: ClassVar[bool] = False
    attention_weights: ClassVar[bool] = True
    new_tokens: ClassVar[int] = 3
    carried: ClassVar[Sequence[Carried]] = ()
    recurrent: ClassVar[str] = ""
    needs_mask: ClassVar[bool] = False
    tolerance: ClassVar[float] = TOLERANCE

    def make_model(self) -> Any:
        """The model; it may be the same one each time."""
        raise NotImplementedError

    def decoder(self, model: Any) -> nn.Module:
        """The module of the model that takes ``inputs_embeds`` and has ``layers``."""
        raise NotImplementedError

    def make_prompt(self, rows: Sequence[int]) -> VisualPrompt:
        """A batch of these rows, in this order, padded on the left; a row has the same tokens in every batch."""
        raise NotImplementedError

    def _model(self) -> tuple[Any, int]:
        model = self.make_model()
        return model, len(layers_of(self.decoder(model)))

    def _readable(self) -> list[int]:
        """Layers whose attention can be read: all but those with a recurrent mixer."""
        layers = layers_of(self.decoder(self.make_model()))
        return [i for i, layer in enumerate(layers) if not (self.recurrent and hasattr(layer, self.recurrent))]

    def _masked_logits(self, model: Any, prompt: VisualPrompt, new: Tensor, removal: Removal) -> Tensor:
        return masked_logits(model, self.decoder(model), prompt, new, removal, self.carried, self.recurrent)

    def _prompt(self) -> VisualPrompt:
        return self.make_prompt(range(self.rows))

    def _pipeline(self, name: str, depth: int) -> Pipeline:
        known = pipelines(depth, self.images, self._readable())
        if name not in known:
            pytest.skip("images = False: no row holds images that the adapter reads")
        return known[name]

    def _generate(self, model: Any, prompt: VisualPrompt, pipeline: Pipeline | None) -> Run:
        return generate(model, self.decoder(model), prompt, pipeline, self.new_tokens)

    def _removal(self, model: Any, prompt: VisualPrompt, pipeline: Pipeline, run: Run, depth: int) -> Removal:
        merging = self._generate(model, prompt, Pipeline(pipeline.mergers)).report if pipeline.mergers else None
        cuts = pipeline.layers(depth) or [depth]
        return Removal.of(prompt, merging, run.report, cuts[0])

    def _budget(self, prompt: VisualPrompt, pipeline: Pipeline, row: int) -> int:
        counts = [len(span.columns) for span in prompt.spans[row] if span.modality == "video"]
        others = len(prompt.columns(row)) - sum(counts)
        for merger in pipeline.mergers:
            counts = [exact_count(merger.keep_ratio, merger.keep, count) for count in counts]  # type: ignore[attr-defined]
        cut = sum(counts)
        for selector in pipeline.selectors:
            if "image" in modalities_of(selector):
                cut, others = cut + others, 0
            cut = exact_count(selector.keep_ratio, selector.keep, cut) if cut else 0  # type: ignore[attr-defined]
        return cut + others

    def _in_batch(self, model: Any, rows: Sequence[int], pipeline: Pipeline) -> list[tuple[list[int], list[int]]]:
        prompt = self.make_prompt(rows)
        run = self._generate(model, prompt, pipeline)
        padding = [int(valid.long().argmax()) for valid in prompt.valid]
        kept = [(columns - pad).tolist() for columns, pad in zip(run.report.kept, padding)] if run.reports else []
        if not run.reports:
            kept = [prompt.text(row) for row in range(len(rows))]
        return list(zip(kept, run.new.tolist()))
