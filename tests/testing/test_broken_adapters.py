# SPDX-License-Identifier: Apache-2.0
"""Each law of adapters fails where an adapter, or the runtime beneath it, is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from testing.qwen_case import QwenCase

import tokenprune as tp
from tokenprune.hf import HFDecoder, ProjectionReader, attention, forward
from tokenprune.hf.carried import Cargo
from tokenprune.hf.mass import MassBias
from tokenprune.runtime import active, session
from tokenprune.testing import AdapterConformance, LawBrokenError
from tokenprune_qwen25vl import boundaries

Break = Callable[[pytest.MonkeyPatch], None]
LEFT_BEHIND: list[Any] = []


class Conformance(QwenCase, AdapterConformance):
    """Run by hand."""


def one_layer_too_many(patch: pytest.MonkeyPatch) -> None:
    find = session.find_adapter
    patch.setattr(session, "find_adapter", lambda model: replace(find(model), depth=find(model).depth + 1))


def spans_changed(patch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    read = boundaries.visual_boundaries
    patch.setattr(boundaries, "visual_boundaries", lambda *args: change(read(*args)))


def one_column_late(patch: pytest.MonkeyPatch) -> None:
    spans_changed(patch, lambda rows: [[replace(s, columns=s.columns + 1) for s in row] for row in rows])


def height_for_width(patch: pytest.MonkeyPatch) -> None:
    def turned(span: tp.VisualSpan) -> tp.VisualSpan:
        return replace(span, grid=(span.grid[0], span.grid[2], span.grid[1]))

    spans_changed(patch, lambda rows: [[turned(span) for span in row] for row in rows])


def only_the_first_row_is_read(patch: pytest.MonkeyPatch) -> None:
    spans_changed(patch, lambda rows: [row if place == 0 else [] for place, row in enumerate(rows)])


def features_are_touched(patch: pytest.MonkeyPatch) -> None:
    install = HFDecoder.install

    def scaled(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "inputs_embeds": kwargs["inputs_embeds"] * (1 + 1e-6)}

    def with_a_hook(self: HFDecoder, active: Any) -> Any:
        return [*install(self, active), self.text.register_forward_pre_hook(scaled, with_kwargs=True)]

    patch.setattr(HFDecoder, "install", with_a_hook)


def the_cache_keeps_other_tokens(patch: pytest.MonkeyPatch) -> None:
    take = tp.PrunableLayer.take
    patch.setattr(tp.PrunableLayer, "take", lambda self, index, *known: take(self, (index - 1).clamp(min=0), *known))


def positions_are_renumbered(patch: pytest.MonkeyPatch) -> None:
    shorten = Cargo.shorten_arguments

    def renumbered(*args: Any) -> Any:
        left = shorten(*args)
        positions = left["position_ids"]
        return {**left, "position_ids": torch.arange(positions.shape[-1]).expand_as(positions)}

    patch.setattr(Cargo, "shorten_arguments", renumbered)


def mass_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MassBias, "_masses", lambda *args: None)


def rotary_is_left_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attention, "rotation_of", lambda module: lambda x, cos, sin: x)


def keys_for_queries(patch: pytest.MonkeyPatch) -> None:
    see = ProjectionReader._see_queries
    patch.setattr(ProjectionReader, "_see_queries", lambda self, module, args, out: see(self, module, args, out * 1.5))


def bytes_are_made_up(patch: pytest.MonkeyPatch) -> None:
    count = forward._cache_bytes
    patch.setattr(forward, "_cache_bytes", lambda cache: replace(count(cache), stored=count(cache).stored // 2))


def ratios_are_made_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tp.Report, "visual_retained", property(lambda self: [0.5 for _ in self.visual_tokens]))


def a_hook_is_left_behind(patch: pytest.MonkeyPatch) -> None:
    install = HFDecoder.install

    def with_a_hook(self: HFDecoder, active: Any) -> Any:
        LEFT_BEHIND.append(self.text.register_forward_pre_hook(lambda module, args: None))
        return install(self, active)

    patch.setattr(HFDecoder, "install", with_a_hook)


def nobody_looks_whether_it_is_attached(patch: pytest.MonkeyPatch) -> None:
    class Forgetful:
        def update(self, modules: Any) -> None: ...
        def discard(self, module: Any) -> None: ...
        def __contains__(self, module: Any) -> bool:
            return False

    patch.setattr(session, "_attached", Forgetful())


def reports_are_shared(patch: pytest.MonkeyPatch) -> None:
    everyones: list[Any] = []
    finish = active.ActivePipeline.finish

    def shared(self: Any, *args: Any) -> None:
        finish(self, *args)
        everyones.append(self.reports[-1])

    patch.setattr(active.ActivePipeline, "finish", shared)
    patch.setattr(tp.Session, "report", property(lambda self: everyones[-1] if everyones else None))


@pytest.mark.parametrize(
    ("broken", "law", "arguments"),
    [
        (one_layer_too_many, "the-model-is-accepted-with-its-depth", ()),
        (one_column_late, "visual-tokens-are-found", ()),
        (height_for_width, "visual-tokens-are-found", ()),
        (only_the_first_row_is_read, "visual-tokens-are-found", ()),
        (features_are_touched, "keeping-everything-is-bit-identical", ()),
        (the_cache_keeps_other_tokens, "removal-equals-masking", ("both",)),
        (positions_are_renumbered, "removal-equals-masking", ("dropping",)),
        (mass_is_forgotten, "mass-counts-what-was-merged", ()),
        (positions_are_renumbered, "a-forward-without-mask-or-cache", ("dropping", False)),
        (positions_are_renumbered, "positions-are-kept", ()),
        (rotary_is_left_out, "scores-are-the-layers-own-attention", ()),
        (keys_for_queries, "scores-are-the-layers-own-attention", ()),
        (one_column_late, "text-is-untouched-and-budgets-are-exact", ("both",)),
        (bytes_are_made_up, "removal-is-true", ()),
        (ratios_are_made_up, "reports-are-consistent", ()),
        (only_the_first_row_is_read, "a-row-is-pruned-alike-in-any-batch", ()),
        (a_hook_is_left_behind, "detaching-restores-the-model", ()),
        (nobody_looks_whether_it_is_attached, "attaching-twice-is-an-error", ()),
        (reports_are_shared, "sessions-of-two-models-do-not-meet", ()),
    ],
    ids=lambda value: getattr(value, "__name__", value if isinstance(value, str) else ""),
)
def test_a_broken_adapter_fails(
    broken: Break, law: str, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Conformance()
    broken(monkeypatch)
    try:
        with pytest.raises(LawBrokenError, match=f"^{law}: ") as caught:
            getattr(case, f"test_{law.replace('-', '_')}")(*arguments)
    finally:
        monkeypatch.undo()
        while LEFT_BEHIND:  # the model is shared
            LEFT_BEHIND.pop().remove()
    assert caught.value.law == law


def test_every_law_of_adapters_is_broken_here() -> None:
    [mark] = [mark for mark in test_a_broken_adapter_fails.pytestmark if mark.name == "parametrize"]
    broken = {law for _, law, _ in mark.args[1]}
    laws = {name.removeprefix("test_").replace("_", "-") for name in dir(Conformance) if name.startswith("test_")}
    assert laws == broken
