# SPDX-License-Identifier: Apache-2.0
"""Laws of adapters: reports, batches and sessions."""

from __future__ import annotations

import copy
import json
from contextlib import suppress

import torch

from tokenprune.errors import AlreadyAttachedError
from tokenprune.operators.uniform import UniformSelect
from tokenprune.pipeline import Pipeline
from tokenprune.runtime.session import attach
from tokenprune.testing.adapter_case import AdapterCase, adapter_law
from tokenprune.testing.laws import require
from tokenprune.testing.observe import fingerprint
from tokenprune.testing.runs import (
    Failing,
)
from tokenprune.testing.same import same_bits


class SessionLaws(AdapterCase):
    """What a session reports, and what it leaves behind."""

    @adapter_law
    def test_reports_are_consistent(self) -> None:
        (model, depth), prompt = self._model(), self._prompt()
        report = self._generate(model, prompt, self._pipeline("both", depth)).report
        data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        visual = [len(prompt.columns(row)) for row in range(self.rows)]
        require(data["visual_tokens"] == visual, f"visual_tokens are {data['visual_tokens']}, not {visual}")
        require(data["prompt_tokens"] == prompt.valid.sum(1).tolist(), "prompt_tokens count padding, or not all")
        left = visual
        for stage in data["stages"]:
            require(stage["visual_before"] == left, f"{stage['operator']} does not begin where the one before ended")
            left = stage["visual_after"]
        for row in range(self.rows):
            kept = left[row] / visual[row] if visual[row] else 1.0
            require(data["visual_retained"][row] == kept, f"row {row}: visual_retained is not {kept}")
            require(data["compression_ratio"][row] == 1 - kept, f"row {row}: compression_ratio is not {1 - kept}")

    @adapter_law
    def test_a_row_is_pruned_alike_in_any_batch(self) -> None:
        """The same tokens are kept and the same answer given, alone or beside other rows, however padded."""
        model, depth = self._model()
        pipeline = self._pipeline("both", depth)
        order = list(range(self.rows))
        alone = [self._in_batch(model, [row], pipeline)[0] for row in order]
        for batch in (order, order[::-1]):
            for row, found in zip(batch, self._in_batch(model, batch, pipeline)):
                require(found == alone[row], f"row {row} is pruned or answered differently in the batch {batch}")

    @adapter_law
    def test_detaching_restores_the_model(self) -> None:
        """After a session, after an error in its body, and after one in an operator, the model is as it was."""
        (model, depth), prompt = self._model(), self._prompt()
        plain, before = self._generate(model, prompt, None), fingerprint(model)

        def body_fails() -> None:
            with attach(model, self._pipeline("both", depth)):
                raise ArithmeticError("in the body")

        for name, use in {
            "a session": lambda: self._generate(model, prompt, self._pipeline("both", depth)),
            "an error in the body": body_fails,
            "an error in an operator": lambda: self._generate(model, prompt, Pipeline([Failing()])),
        }.items():
            with suppress(ArithmeticError):
                use()
            now = fingerprint(model)
            changed = [module or "the model" for module, was in before.items() if now.get(module) != was]
            require(not changed, f"{name} left hooks or attributes on {', '.join(changed)}")
        again = self._generate(model, prompt, None)
        same = all(same_bits(a, b) for a, b in zip(again.logits, plain.logits))
        require(same, "after detaching the logits are others")

    @adapter_law
    def test_attaching_twice_is_an_error(self) -> None:
        model, _ = self._model()
        with attach(model, Pipeline()):
            try:
                second = attach(model, Pipeline())
            except AlreadyAttachedError:
                pass
            else:
                second.detach()  # other laws share the model
                require(False, "a second session was attached")
        attach(model, Pipeline()).detach()

    @adapter_law
    def test_sessions_of_two_models_do_not_meet(self) -> None:
        model, prompt = self._model()[0], self._prompt()
        other = copy.deepcopy(model)
        with attach(model, Pipeline([UniformSelect(keep=1)])) as one, attach(other, Pipeline()) as two, torch.no_grad():
            other(**prompt.inputs)
            require(one.report is None and len(two.reports) == 1, "a forward was reported by the other model's session")
