# SPDX-License-Identifier: Apache-2.0
"""Published methods inside the LLM, end to end: what they decided is what later layers and tokens no longer see.

The decisions are held against slow references in tests/methods, what they read against the model in
test_reading_layers; here the plans of a run are applied to the full-length model that masks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.compare import agrees, distance, generate, reports, stores
from hf.mass_oracle import MassRow, mass_oracle
from hf.mass_oracle import Turn as NoCut
from hf.names import cache_of
from hf.oracle import Oracle, run
from hf.prompts import Clip, Prompt, image, prompt, shared_model
from torch import Tensor

import tokenprune as tp
from tokenprune.stage import Stage

METHODS: dict[str, Any] = {
    "FastV": tp.FastV(keep_ratio=0.4),
    "PyramidDrop": tp.PyramidDrop(),
    "PyramidDrop to 3": tp.PyramidDrop(keep=3),
    "DART": tp.DART(keep_ratio=0.4),
    "V2Drop": tp.V2Drop(),
    "STTM": tp.STTM(layer=0, tau_s=0.99, tau_t=0.95),
    "STTM to a third": tp.STTM(keep_ratio=0.3),
    "FrameFusion": tp.FrameFusion(keep_ratio=0.4, similarity_lower_bound=0.9),
    "FlashVIDInner": tp.FlashVIDInner(keep_ratio=0.3),
    "HoliTomInner": tp.HoliTomInner(layer=1, keep_ratio=0.5),
    "SparseVLM": tp.SparseVLM(),
    "SparseVLM to 9": tp.SparseVLM(keep=9),
    "V2Drop to a fifth": tp.V2Drop(keep_ratio=0.2),
}
PROMPTS: dict[str, list[Any]] = {
    "one row": [[3, Clip(4, 2, 3), 4]],
    "ragged": [[2, Clip(4, 2, 2), 3, Clip(2, 2, 3), 5], [6, image(2, 2), 1, Clip(3, 2, 3), 7], [30]],
}


@dataclass(frozen=True)
class Decided:
    """What a stage decided about one row: the ids of the tokens it was shown tell which row it was."""

    layer: int
    plan: tp.TokenPlan


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Decided]]:
    """Every plan that an operator at a layer returns, in order."""
    plans: list[Decided] = []
    decide = Stage.decide

    def note(stage: Stage, tokens: tp.VisualTokens) -> tp.TokenPlan:
        plan = decide(stage, tokens)
        if stage.layer is not None:
            plans.append(Decided(stage.layer, plan))
        return plan

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "decide", note)
        yield plans


@dataclass
class MixedRow(MassRow):
    """A row whose plans may mix in any way."""

    plans: list[tuple[int, Tensor, tp.TokenPlan]] = field(default_factory=list)

    def after(self, layer: int, hidden: Tensor) -> Tensor:
        mixed = hidden.clone()
        for at, places, plan in self.plans:
            if at == layer:
                mixed[places[plan.anchors]] = plan.mix(hidden[places])
        return mixed


def replayed(
    model: Any, whole: Prompt, plans: list[Decided], left_out: bool = False, modalities: tuple[str, ...] = ("video",)
) -> Oracle:
    """The full-length model in which these plans were carried out; each row that has tokens was asked at each layer."""
    rows = [MixedRow(**vars(row)) for row in mass_oracle(model, whole, NoCut(mass=False)).rows]  # type: ignore[arg-type]
    layers = sorted({decided.layer for decided in plans})
    for layer in layers if not left_out else []:
        mine = iter([decided.plan for decided in plans if decided.layer == layer])
        for row in rows:
            left = [p for p in range(len(row.kind)) if row.kind[p] in modalities and p not in row.removed]
            if not left:
                continue
            plan, places = next(mine), torch.tensor(left)
            assert plan.total == len(left)
            row.plans.append((layer, places, plan))
            groups: dict[int, list[int]] = {}
            for place, home in zip(left, plan.assign.tolist()):
                if home >= 0:
                    groups.setdefault(left[plan.anchors[home]], []).append(place)
            for anchor, members in groups.items():
                row.sources[anchor] = sorted(c for member in members for c in row.sources[member])
            for place in set(left) - set(places[plan.anchors].tolist()):
                row.removed[place] = (layer, row.stop[place])
        assert next(mine, None) is None
    return Oracle(list(rows), [run(model, row) for row in rows])


@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_removal_is_masking(method: Any, rows: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = shared_model(), prompt(rows)
    with recorded(monkeypatch) as plans, tp.attach(model, method) as session:
        out = generate(model, given)
    whole = given.answered(out.sequences[:, given.length :])
    truth = replayed(model, whole, plans)
    agrees(out.logits, truth, given.length - 1)
    reports(session, truth, given.length, cache_of(out))
    stores(cache_of(out), given.length + 3, max(len(row.kept(given.length)) for row in truth.rows) + 3)
    assert distance(out.logits, replayed(model, whole, plans, left_out=True), given.length - 1) > 0.01


IMAGES = [
    tp.HoliTomInner(layer=1, keep_ratio=0.5, modalities=("video", "image")),
    tp.FrameFusion(keep_ratio=0.4, modalities=("video", "image")),
    tp.STTM(keep=9, modalities=("video", "image")),
    tp.PyramidDrop(modalities=("video", "image")),
]


@pytest.mark.parametrize("method", IMAGES, ids=lambda method: type(method).__name__)
def test_images_and_videos_of_a_row_share_its_budget(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = shared_model(), prompt([[2, image(3, 3), 1, Clip(2, 2, 2), 3, Clip(2, 1, 3), 4]])
    with recorded(monkeypatch) as plans, tp.attach(model, method) as session:
        out = generate(model, given)
    truth = replayed(model, given.answered(out.sequences[:, given.length :]), plans, modalities=method.modalities)
    agrees(out.logits, truth, given.length - 1)
    reports(session, truth, given.length, cache_of(out))
    assert session.report.stages[-1]["visual_after"] == [method.budget(9 + 8 + 6)]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_file_holds_it(method: Any) -> None:
    pipeline = tp.Pipeline([method])
    assert tp.Pipeline.from_dict(json.loads(json.dumps(pipeline.to_dict()))) == pipeline


def attended(model: Any, given: Prompt, layer: int) -> Tensor:
    """``(N,)`` attention of the only row's last token on its video, mean over heads, in the plain model."""
    with torch.no_grad():
        weights = model(**given.inputs(), output_attentions=True).attentions[layer][0, :, -1]
    placed = given.clips[0][0]
    return weights.mean(0)[placed.column : placed.column + placed.clip.count]


def test_fastv_ranks_by_the_attention_of_its_layer() -> None:
    model, given = shared_model("eager"), prompt(PROMPTS["one row"])
    best = attended(model, given, 1).topk(10).indices.sort().values
    with tp.attach(model, tp.FastV(keep_ratio=0.4)) as session:
        generate(model, given)
    assert torch.equal(session.report.spans[0][0].plan.anchors, best)


def test_pyramiddrop_ranks_by_the_attention_of_the_next_layer() -> None:
    model, given = shared_model("eager"), prompt(PROMPTS["one row"])
    best = attended(model, given, 1).topk(12).indices.sort().values
    with tp.attach(model, tp.PyramidDrop(ratios=(0.5,), layers=(0,))) as session:
        generate(model, given)
    assert torch.equal(session.report.spans[0][0].plan.anchors, best)


@pytest.mark.parametrize("layer", [0, 1])
def test_with_mass_they_rank_by_attention_per_original_token(layer: int) -> None:
    """FastV at its own layer, PyramidDrop at the one before: the bias is in the softmax, its mass divided out."""
    model, given, merge = shared_model("eager"), prompt(PROMPTS["one row"]), tp.ToMe(keep=9)
    method = tp.FastV(layer=1, keep=4) if layer == 1 else tp.PyramidDrop(ratios=(0.4,), layers=(0,))
    with tp.attach(model, tp.Pipeline([merge], mass="sizes")) as session, torch.no_grad():
        weights = model(**given.inputs(), output_attentions=True).attentions[1][0, :, -1, 4:13]
    sizes = session.report.spans[0][0].plan.sum(torch.ones(24))
    assert int(sizes.max()) > 1
    best = (weights.mean(0) / sizes).topk(4).indices.sort().values
    with tp.attach(model, tp.Pipeline([merge, method], mass="sizes")) as session:
        generate(model, given)
    assert torch.equal(session.report.spans[0][0].steps[1].plan.anchors, best)


def test_a_merge_at_a_layer_hands_on_its_mass() -> None:
    model, given = shared_model(), prompt(PROMPTS["ragged"])
    with tp.attach(model, tp.Pipeline([tp.HoliTomInner(layer=1, keep=5)], mass="sizes")) as session:
        out = generate(model, given)
    kept = [len(columns) for columns in session.report.kept]
    for layer in cache_of(out).layers:
        valid = layer.slot_valid()
        real = (layer.slot_mass() * valid).sum(dim=1) - 3  # the answers that have been read since
        assert real.tolist() == [kept[0] - 5 + 28, kept[1] - 5 + 18, kept[2]]
