# SPDX-License-Identifier: Apache-2.0
"""Laws of adapters: the model is read rightly."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tokenprune.errors import InvalidValueError
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.operators.uniform_prune import UniformPrune
from tokenprune.pipeline import Pipeline
from tokenprune.runtime.session import attach
from tokenprune.testing.adapter_case import AdapterCase, adapter_law
from tokenprune.testing.laws import require
from tokenprune.testing.observe import intercepted
from tokenprune.testing.runs import (
    ScoreWitness,
    TokenWitness,
    middle_of,
    require_close,
)
from tokenprune.testing.same import same_bits


class ReadingLaws(AdapterCase):
    """What an adapter reads from a model: its depth, its visual tokens and a layer's attention."""

    @adapter_law
    def test_the_model_is_accepted_with_its_depth(self) -> None:
        model, depth = self._model()
        attach(model, Pipeline([UniformPrune(layer=depth - 1, keep=1)])).detach()
        try:
            attach(model, Pipeline([UniformPrune(layer=depth, keep=1)])).detach()
        except InvalidValueError:
            return
        require(False, f"the adapter says the model has more than its {depth} layers")

    @adapter_law
    def test_visual_tokens_are_found(self) -> None:
        """Grids, columns in raster order, and features at the columns, for every video and image."""
        (model, _), prompt, witness, embeds = self._model(), self._prompt(), TokenWitness([]), []

        def note(args: Any, kwargs: dict[str, Any]) -> Any:
            embeds.append(kwargs["inputs_embeds"])
            return args, kwargs

        with intercepted(self.decoder(model), note), attach(model, Pipeline([witness])) as session, torch.no_grad():
            model(**prompt.inputs)
        report = session.report
        if report is None:
            raise AssertionError("the prefill made no report: no visual token was found")
        for row in range(self.rows):
            found = [int(c) for group in report.sources[row] for c in group]
            require(found == prompt.columns(row), f"row {row}: visual tokens at {found}, not {prompt.columns(row)}")
        videos = [(row, span) for row, spans in enumerate(prompt.spans) for span in spans if span.modality == "video"]
        require(len(videos) == len(witness.shown), f"{len(witness.shown)} videos were found of {len(videos)}")
        for (row, span), tokens in zip(videos, witness.shown):
            require(tokens.grid == span.grid, f"row {row}: a grid {tokens.grid} was found, not {span.grid}")
            same = same_bits(tokens.features, embeds[0][row, span.columns])
            require(same, f"row {row}: the features are not those at the video's columns")

    @adapter_law
    def test_scores_are_the_layers_own_attention(self) -> None:
        """What scorers read are the layer's queries and keys, with its own rotary embedding and scaling."""
        if not self.attention_weights:
            pytest.skip("attention_weights = False: the model cannot be asked for attention weights")
        (model, depth), prompt = self._model(), self._prompt()
        layer, witness = middle_of(self._readable(), depth), ScoreWitness([])
        with attach(model, Pipeline([AttnPrune(layer=layer, keep=1, scorer=witness)])), torch.no_grad():
            model(**prompt.inputs)
        eager = copy.deepcopy(model)
        eager.set_attn_implementation("eager")
        with torch.no_grad():
            weights = eager(**prompt.inputs, output_attentions=True).attentions
        weights = weights[layer if len(weights) == depth else self._readable().index(layer)]
        rows = [row for row in range(self.rows) if len(prompt.columns(row, ["video"])) > 1]
        require(len(rows) == len(witness.scores), f"{len(witness.scores)} rows were scored, not {len(rows)}")
        for row, scores in zip(rows, witness.scores):
            asking = [c for c in prompt.text(row) if c > prompt.last_visual(row)]
            wanted = weights[row][:, asking][:, :, prompt.columns(row, ["video"])].amax(dim=(0, 1))
            require_close(scores, wanted, f"scores of row {row}")
