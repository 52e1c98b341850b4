# SPDX-License-Identifier: Apache-2.0
"""Laws of adapters: tokens are removed rightly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tokenprune.errors import UnsupportedModeError
from tokenprune.pipeline import Pipeline
from tokenprune.runtime.session import attach
from tokenprune.testing.adapter_case import AdapterCase, adapter_law
from tokenprune.testing.laws import require
from tokenprune.testing.prompts import VisualPrompt
from tokenprune.testing.runs import (
    keep_all_pipelines,
    require_close,
)
from tokenprune.testing.same import same_bits


class RemovalLaws(AdapterCase):
    """What a pruned run has in common with the plain one."""

    @adapter_law
    def test_keeping_everything_is_bit_identical(self) -> None:
        (model, depth), prompt = self._model(), self._prompt()
        plain = self._generate(model, prompt, None)
        for pipeline in keep_all_pipelines(depth, self._readable()):
            run = self._generate(model, prompt, pipeline)
            same = all(same_bits(a, b) for a, b in zip(run.logits, plain.logits)) and same_bits(run.new, plain.new)
            require(same, f"{pipeline} changed the logits")

    @pytest.mark.parametrize(
        "name", ["dropping", "merging", "merging inside", "first layer", "last layer", "both", "images"]
    )
    @adapter_law
    def test_removal_equals_masking(self, name: str) -> None:
        """Prefill and decoding agree with the full-length model in which the removed tokens are masked."""
        (model, depth), prompt = self._model(), self._prompt()
        pipeline = self._pipeline(name, depth)
        run = self._generate(model, prompt, pipeline)
        removal = self._removal(model, prompt, pipeline, run, depth)
        require(bool((removal.before | removal.after).any()), "nothing was removed")
        truth = self._masked_logits(model, prompt, run.new, removal)
        for step, logits in enumerate(run.logits):
            require_close(logits, truth[:, prompt.length - 1 + step], f"logits of step {step}", self.tolerance)

    @adapter_law
    def test_mass_counts_what_was_merged(self) -> None:
        """With ``mass="sizes"`` attention sees a token of n merged ones as n tokens, in every layer and step."""
        (model, depth), prompt = self._model(), self._prompt()
        merging = Pipeline(self._pipeline("merging", depth).operators, mass="sizes")
        run = self._generate(model, prompt, merging)
        mass = torch.ones(prompt.input_ids.shape)
        for row, groups in enumerate(run.report.sources):
            visual = set(prompt.columns(row))
            anchors = [c for c in run.report.kept[row].tolist() if c in visual]
            require(sum(map(len, groups)) == len(visual), f"row {row}: the mass of its tokens is not their number")
            mass[row, anchors] = torch.tensor([float(len(group)) for group in groups])
        removal = replace(self._removal(model, prompt, merging, run, depth), mass=mass)
        truth = self._masked_logits(model, prompt, run.new, removal)
        for step, logits in enumerate(run.logits):
            require_close(logits, truth[:, prompt.length - 1 + step], f"logits of step {step}", self.tolerance)

    @pytest.mark.parametrize("use_cache", [True, False])
    @pytest.mark.parametrize("name", ["dropping", "both"])
    @adapter_law
    def test_a_forward_without_mask_or_cache(self, name: str, use_cache: bool) -> None:
        """Gaps in the positions of a shortened sequence are not taken for packed sequences."""
        (model, depth), prompt = self._model(), self.make_prompt([0])
        inputs = {key: value for key, value in prompt.inputs.items() if key != "attention_mask"}
        bare, pipeline = VisualPrompt(inputs, prompt.spans), self._pipeline(name, depth)
        if self.needs_mask:
            with attach(model, pipeline), torch.no_grad(), pytest.raises(UnsupportedModeError, match="attention_mask"):
                model(**bare.inputs, use_cache=use_cache)
            return
        run = self._generate(model, prompt, pipeline)
        with attach(model, pipeline), torch.no_grad():
            logits = model(**bare.inputs, use_cache=use_cache).logits[:, -1]
        removal = self._removal(model, prompt, pipeline, run, depth)
        truth = self._masked_logits(model, bare, run.new[:, :0], removal)
        require_close(logits, truth[:, -1], "logits of a bare forward", self.tolerance)

    @pytest.mark.parametrize("name", ["merging", "both", "images"])
    @adapter_law
    def test_text_is_untouched_and_budgets_are_exact(self, name: str) -> None:
        """All text is kept; kept columns are sorted and unique; each visual token is in one place, or dropped."""
        (model, depth), prompt = self._model(), self._prompt()
        pipeline = self._pipeline(name, depth)
        report = self._generate(model, prompt, pipeline).report
        for row in range(self.rows):
            kept, visual = report.kept[row].tolist(), prompt.columns(row)
            require(kept == sorted(set(kept)), f"row {row}: kept columns are not sorted and unique")
            lost = sorted(set(prompt.text(row)) - set(kept))
            require(not lost, f"row {row}: the text at columns {lost} is gone")
            require(set(kept) <= {*prompt.text(row), *visual}, f"row {row}: padding counts as kept")
            standing, sources = [c for c in kept if c in visual], [group.tolist() for group in report.sources[row]]
            together = sorted(c for group in sources for c in group)
            require(len(sources) == len(standing), f"row {row}: sources are not parallel to the kept visual tokens")
            require(all(c in group for c, group in zip(standing, sources)), f"row {row}: an anchor left its place")
            require(len(set(together)) == len(together) and set(together) <= set(visual), f"row {row}: wrong sources")
            wanted = self._budget(prompt, pipeline, row)
            require(len(standing) == wanted, f"row {row}: {len(standing)} visual tokens are kept, not {wanted}")

    @adapter_law
    def test_positions_are_kept(self) -> None:
        """Kept tokens are rotated as in the plain model, and decoding goes on from the full prompt's positions."""
        (model, depth), prompt = self._model(), self._prompt()
        pipeline = self._pipeline("both", depth)
        plain, run = self._generate(model, prompt, None), self._generate(model, prompt, pipeline)
        merging = self._generate(model, prompt, Pipeline(pipeline.mergers)).report.kept
        [cut] = pipeline.layers(depth)
        for layer in range(depth):
            kept = merging if layer <= cut else run.report.kept
            for full, short in zip(plain.seen[layer].rotary[0], run.seen[layer].rotary[0]):
                for row, columns in enumerate(kept):
                    same = torch.allclose(_row(short, row)[..., -len(columns) :, :], _row(full, row)[..., columns, :])
                    require(same, f"layer {layer}, row {row}: a kept token is rotated to another position")
            for step in range(1, self.new_tokens):
                for full, short in zip(plain.seen[layer].rotary[step], run.seen[layer].rotary[step]):
                    require(torch.allclose(full, short), f"layer {layer}: new token {step} is at another position")

    @adapter_law
    def test_removal_is_true(self) -> None:
        """Layers compute, and the cache stores, only what is kept; the report says so."""
        (model, depth), prompt = self._model(), self._prompt()
        pipeline = self._pipeline("both", depth)
        plain, run = self._generate(model, prompt, None), self._generate(model, prompt, pipeline)
        merging = self._generate(model, prompt, Pipeline(pipeline.mergers)).report.kept
        [cut] = pipeline.layers(depth)
        longest = max(len(kept) for kept in run.report.kept)
        require(longest < prompt.length, "the longest row keeps everything")
        for layer in range(depth):
            counts = [len(kept) for kept in (merging if layer <= cut else run.report.kept)]
            require(run.report.layer_tokens[layer] == counts, f"layer_tokens of layer {layer} are not {counts}")
            require(run.seen[layer].lengths[0] == max(counts), f"layer {layer} computed {run.seen[layer].lengths[0]}")
            if layer not in self._readable():
                continue
            stored = run.cache.layers[layer].keys.shape[-2]
            require(stored == longest + self.new_tokens - 1, f"layer {layer} stores {stored} tokens")
        storing = [plain.cache.layers[layer] for layer in self._readable()]
        whole = sum(part.nbytes for layer in storing for part in (layer.keys, layer.values))
        a_token = whole // (prompt.length + self.new_tokens - 1)
        require(run.report.kv_bytes == a_token * longest, f"kv_bytes is {run.report.kv_bytes}")
        require(run.report.kv_bytes_unpruned == a_token * prompt.length, "kv_bytes_unpruned is another number")


def _row(rotary: Tensor, row: int) -> Tensor:
    """One prompt row of ``(..., B or 1, L, head_dim)``."""
    return rotary.select(-3, row if rotary.shape[-3] > 1 else 0)
