# SPDX-License-Identifier: Apache-2.0
"""Everything that ships keeps the laws, and each law fails for something that breaks it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tokenprune as tp
from tokenprune.operators.pyramiddrop import PyramidDropStage
from tokenprune.operators.sparsevlm import SparseVLMStage
from tokenprune.operators.v2drop import V2DropStage
from tokenprune.testing import (
    CACHE_LAWS,
    OPERATOR_LAWS,
    SCORER_LAWS,
    Law,
    LawBrokenError,
    attention_views,
    check_cache,
    check_operator,
    check_scorer,
    token_plans,
    visual_tokens,
)
from tokenprune.testing.strategies import FEATURES

MERGERS = [
    tp.STMerge(),
    tp.STMerge(tau=0.5, cluster_ratio=0.3, temporal_segment_ratio=1.0, min_tokens=2, neighbours=3),
    tp.STMerge(keep_ratio=0.3, min_tokens=1),
    tp.STMerge(keep=3, distance_scale="raw", min_tokens=4),
    tp.UniformSelect(keep_ratio=0.3),
    tp.RandomSelect(keep=5, seed=7),
    tp.Cover(keep_ratio=0.3),
    tp.Cover(keep=4, spread=0.5, modalities=("video", "image")),
    tp.EVS(keep_ratio=0.4),
    tp.VidCom2(keep_ratio=0.3),
    tp.DivPrune(keep_ratio=0.4),
    tp.DyCoke(),
    tp.DyCoke(keep=7),
    tp.AveragePool(),
    tp.AveragePool(keep=5, modalities=("video", "image")),
    tp.VisionZip(keep_ratio=0.4),
    tp.VisionZip(keep=5, dominant=1, contextual=1, published=True),
    tp.HoliTom(keep_ratio=0.4),
    tp.HoliTom(keep=4, tau=0.2, beta=1.0, modalities=("video", "image")),
    tp.FastVID(keep_ratio=0.4),
    tp.FastVID(keep=5, segments=1, tau=-1.0, ignore=0.3, context_ratio=0.7, frame_step=2, beta=0.0),
    tp.FlashVID(keep_ratio=0.4),
    tp.FlashVID(keep=5, alpha=0.3, temporal_threshold=0.1, min_segment_num=1, published=True),
    tp.DTD(),
    tp.DTD(keep_ratio=0.4),
    tp.TTF(),
    tp.TTF(keep=4),
    tp.VCast(keep_ratio=0.3),
    tp.GleanVID(keep_ratio=0.3),
    tp.ToMe(keep_ratio=0.3),
    tp.FLoC(keep_ratio=0.3, chunk=2),
    tp.CDPruner(keep_ratio=0.3),
    tp.CDPruner(keep=5, relevance="text", modalities=("video", "image")),
]
SELECTORS = [
    tp.AttnPrune(keep_ratio=0.4),
    tp.AttnPrune(layer=3, keep=5, select="stratified", scorer="content", modalities=("video", "image")),
    tp.AttnPrune(keep_ratio=0.4, floor=0.5),
    tp.AttnPrune(layer=2, keep=4, select="stratified", scorer="norm", floor=0.3),
    tp.UniformPrune(keep_ratio=0.3),
    tp.RandomPrune(keep=4, seed=3),
    tp.FastV(keep_ratio=0.3),
    PyramidDropStage(keep_ratio=0.3),
    tp.DART(keep_ratio=0.3),
    tp.DART(layer=None, keep=5, modalities=("video", "image")),
    V2DropStage(keep_ratio=0.3),
    SparseVLMStage(keep_ratio=0.3),
    tp.FlashVIDInner(keep_ratio=0.3),
    tp.FrameFusion(keep_ratio=0.3),
    tp.STTM(),
    tp.STTM(layer=None, keep_ratio=0.3, root_level=0),
    tp.FrameFusion(layer=None, keep=5, modalities=("video", "image")),
    tp.HoliTomInner(keep_ratio=0.3, modalities=("video", "image")),
]
PRESSES = [
    tp.SnapKV(keep_ratio=0.3),
    tp.SnapKV(keep=4, window=2, kernel=1, modalities=("video", "image")),
    tp.KNorm(keep_ratio=0.3),
    tp.TOVA(keep_ratio=0.3),
    tp.InfiniPotV(keep_ratio=0.6),
    tp.InfiniPotV(keep=5, tar_ratio=1.0, query_ratio=0.5),
]
SCORERS = [
    tp.RopeCausalScore(),
    tp.RopeCausalScore(head_reduction="mean"),
    tp.ContentScore(),
    tp.KeyNormScore(),
]


@pytest.mark.parametrize("operator", [*MERGERS, *SELECTORS, *PRESSES], ids=repr)
def test_operators(operator: tp.Operator) -> None:
    needs_grid = getattr(operator, "needs_full_grid", False)
    skipped = {"it-may-follow-another-operator" if needs_grid else "a-broken-grid-is-refused"}
    if not hasattr(operator, "keep_ratio"):
        skipped |= {"budgets-are-exact", "keeping-all-changes-nothing"}
    assert set(check_operator(operator, max_examples=12)) == {law.name for law in OPERATOR_LAWS} - skipped


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_scorers(scorer: tp.TokenScorer) -> None:
    unread = {"what-padding-holds-does-not-matter", "more-padding-does-not-matter", "memory-is-bounded"}
    skipped = set() if getattr(scorer, "reads_attention", True) else unread
    assert set(check_scorer(scorer)) == {law.name for law in SCORER_LAWS} - skipped


def test_caches() -> None:
    pytest.importorskip("transformers")
    assert len(check_cache(tp.PrunableDynamicCache)) == len(CACHE_LAWS)


@dataclass(frozen=True)
class Half:
    """A lawful merger; the broken ones below differ from it in one thing."""

    keep_ratio: float | None = 0.5
    keep: int | None = None

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return tp.TokenPlan.keeping(self.anchors(tokens), len(tokens))

    def anchors(self, tokens: tp.VisualTokens) -> Tensor:
        return torch.arange(tp.Budget(self.keep_ratio, self.keep).count(len(tokens)))


class Unsorted(Half):
    def anchors(self, tokens: tp.VisualTokens) -> Tensor:
        return super().anchors(tokens).flip(0)


class Repeated(Half):
    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        anchors = self.anchors(tokens)
        anchors[-1] = anchors[0]
        return tp.TokenPlan(anchors, torch.arange(len(tokens)).clamp(max=len(anchors) - 1))


class OneTooFew(Half):
    def anchors(self, tokens: tp.VisualTokens) -> Tensor:
        return super().anchors(tokens)[: max(1, tp.Budget(self.keep_ratio, self.keep).count(len(tokens)) - 1)]


class RoundedDown(Half):
    def anchors(self, tokens: tp.VisualTokens) -> Tensor:
        count = max(1, int((self.keep_ratio or 1) * len(tokens))) if self.keep is None else self.keep
        return torch.arange(min(count, len(tokens)))


class Nothing(Half):
    def anchors(self, tokens: tp.VisualTokens) -> Tensor:
        return torch.arange(0)


class OtherTotal(Half):
    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return tp.TokenPlan.keeping(self.anchors(tokens), len(tokens) + 1)


class Random(Half):
    def anchors(self, tokens: tp.VisualTokens) -> Tensor:
        return torch.randperm(len(tokens))[: len(super().anchors(tokens))].sort().values


class MovesTheGenerator(Half):
    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        torch.rand(1)
        return super().plan(tokens)


class InPlace(Half):
    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        tokens.features.data.mul_(2)
        return super().plan(tokens)


class FollowsAutocast(Half):
    def anchors(self, tokens: tp.VisualTokens) -> Tensor:
        features = tokens.features.detach().float()
        scores = (features @ torch.full((features.shape[1], 1), 0.3)).squeeze(1)
        if scores.dtype != torch.float32:  # rounding alone shows on large clips, but not for sure
            scores = scores.flip(0)
        return scores.argsort(stable=True)[: len(super().anchors(tokens))].sort().values


class NoIdentity(Half):
    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        plan = super().plan(tokens)
        return tp.TokenPlan.keeping(plan.anchors[: max(1, len(tokens) - 1)], len(tokens))


class KnowsTheGridOnly(Half):
    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return tp.TokenPlan.identity(tokens.volume)


class TakesAnyGrid(Half):
    needs_full_grid = True


@dataclass(frozen=True)
class Remembers(Half):
    """Decides by the first video it saw: what a cache keyed by nothing does."""

    seen: list[float] = field(default_factory=list)

    def anchors(self, tokens: tp.VisualTokens) -> Tensor:
        self.seen.append(float(tokens.features.detach().float().abs().sum()))
        count = len(super().anchors(tokens))
        return torch.arange(count) + (len(tokens) - count) * (len(self.seen) % 2)


@dataclass(frozen=True)
class NotJson(Half):
    strange: Any = 1j


BROKEN_MERGERS = [
    (Unsorted(), "the-plan-is-valid"),
    (Repeated(), "the-plan-is-valid"),
    (Nothing(), "the-plan-is-valid"),
    (OtherTotal(), "the-plan-is-valid"),
    (OneTooFew(), "budgets-are-exact"),
    (RoundedDown(), "budgets-are-exact"),
    (Random(), "the-same-bits-give-the-same-plan"),
    (FollowsAutocast(), "the-same-bits-give-the-same-plan"),
    (Remembers(), "tokens-are-decided-on-their-own"),
    (Remembers(), "nothing-is-changed"),
    (MovesTheGenerator(), "nothing-is-changed"),
    (InPlace(), "nothing-is-changed"),
    (NoIdentity(), "keeping-all-changes-nothing"),
    (KnowsTheGridOnly(), "it-may-follow-another-operator"),
    (TakesAnyGrid(), "a-broken-grid-is-refused"),
    (NotJson(), "it-can-be-written-down"),
    (Half, "it-is-an-operator"),
]


def test_the_model_of_the_broken_mergers_is_lawful() -> None:
    check_operator(Half())


def breaks(laws: tuple[Law[Any], ...], subject: Any, name: str) -> None:
    [law] = [law for law in laws if law.name == name]
    with pytest.raises(LawBrokenError, match=f"^{name}: ") as caught:
        law.test(subject)
    assert caught.value.law == name


@pytest.mark.parametrize(("merger", "law"), BROKEN_MERGERS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_broken_merger_fails(merger: Any, law: str) -> None:
    breaks(OPERATOR_LAWS, merger, law)
    if not isinstance(merger, type):
        with pytest.raises(LawBrokenError):
            check_operator(merger)


@dataclass(frozen=True)
class HalfOfEachHead(Half):
    """A press that gives each of two heads a plan."""

    site: ClassVar[str] = "after_prefill"

    def plan(self, tokens: tp.VisualTokens) -> Any:
        return [super().plan(tokens)] * 2


class UnevenHeads(HalfOfEachHead):
    def plan(self, tokens: tp.VisualTokens) -> Any:
        return [super().plan(tokens)[0], tp.TokenPlan.keeping(torch.arange(1), len(tokens))]


class NoHeads(HalfOfEachHead):
    def plan(self, tokens: tp.VisualTokens) -> Any:
        return []


class HeadsBeforeThereAreAny(HalfOfEachHead):
    site: ClassVar[str] = "before_llm"


class WritesToTheCache(HalfOfEachHead):
    def plan(self, tokens: tp.VisualTokens) -> Any:
        tokens.signals["attention"].values().add_(1)
        return super().plan(tokens)


def test_the_model_of_the_broken_presses_is_lawful() -> None:
    check_operator(HalfOfEachHead())


@pytest.mark.parametrize(
    ("press", "law"),
    [
        (UnevenHeads(), "the-plan-is-valid"),
        (NoHeads(), "the-plan-is-valid"),
        (HeadsBeforeThereAreAny(), "the-plan-is-valid"),
        (WritesToTheCache(), "nothing-is-changed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_press_fails(press: Any, law: str) -> None:
    breaks(OPERATOR_LAWS, press, law)


class WrongSizes(tp.TokenPlan):
    def apply(self, tokens: tp.VisualTokens) -> tp.VisualTokens:
        merged = super().apply(tokens)
        return tp.VisualTokens(merged.features, merged.grid, merged.sizes + 1, merged.membership, merged.places)


class CountsTwice(Half):
    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        plan = super().plan(tokens)
        return WrongSizes(plan.anchors, plan.assign)


def test_wrong_sizes_fail() -> None:
    breaks(OPERATOR_LAWS, CountsTwice(), "every-token-is-in-one-place")


class NoDataclass:
    def score(self, tokens: tp.VisualTokens) -> Tensor:
        raise NotImplementedError


class Selector(tp.UniformPrune):
    pass


class KeepsOneLess(Selector):
    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        plan = super().plan(tokens)
        return tp.TokenPlan.keeping(plan.anchors[: max(1, plan.kept - 1)], len(tokens))


class Alternates(Selector):
    calls = 0

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        type(self).calls += 1
        kept = super().plan(tokens).kept
        anchors = torch.arange(kept) + (len(tokens) - kept) * (self.calls % 2)
        return tp.TokenPlan.keeping(anchors, len(tokens))


class Sorts(tp.AttnPrune):
    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        keys = tokens.signals["attention"].keys()
        keys.copy_(keys.sort(dim=1).values + 1)
        return super().plan(tokens)


class Elsewhere(Selector):
    site = "in the tower"  # type: ignore[misc]


class NeedsLuck(Selector):
    needs = ("luck",)


@pytest.mark.parametrize(
    ("operator", "law"),
    [
        (Selector, "it-is-an-operator"),
        (Elsewhere(keep=2), "it-is-an-operator"),
        (NeedsLuck(keep=2), "it-is-an-operator"),
        (KeepsOneLess(keep=3), "the-budget-is-kept"),
        (KeepsOneLess(keep=3), "budgets-are-exact"),
        (Alternates(keep=3), "the-same-bits-give-the-same-plan"),
        (Sorts(keep=3), "nothing-is-changed"),
        (tp.AttnPrune(keep=1, scorer=NoDataclass()), "it-can-be-written-down"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_operator_inside_the_llm_fails(operator: Any, law: str) -> None:
    breaks(OPERATOR_LAWS, operator, law)


class Scorer:
    """Lawful: how close each key is to the mean query, over keys that are no padding."""

    def score(self, tokens: tp.VisualTokens) -> Tensor:
        view = tokens.signals["attention"]
        return view.keys()[:, view.visual_columns].float().square().sum(-1).amax(0)


class Narrow(Scorer):
    def score(self, tokens: tp.VisualTokens) -> Tensor:
        return super().score(tokens).to(torch.bfloat16)


class WholePrompt(Scorer):
    def score(self, tokens: tp.VisualTokens) -> Tensor:
        view = tokens.signals["attention"]
        return view.keys().float().square().sum(-1).amax(0)


class Centred(Scorer):
    def score(self, tokens: tp.VisualTokens) -> Tensor:
        view = tokens.signals["attention"]
        return super().score(tokens) - view.keys().float().square().mean()


class Attentive(Scorer):
    """All rows, heads and keys at once."""

    @torch.autocast("cpu", enabled=False)
    def score(self, tokens: tp.VisualTokens) -> Tensor:
        view = tokens.signals["attention"]
        group = view.queries().shape[0] // view.keys().shape[0]
        keys = view.keys().float().repeat_interleave(group, dim=0)
        logits = view.queries().float() @ keys.transpose(1, 2) * view.scaling
        logits = logits.masked_fill(~view.visible(slice(None)), -torch.inf)
        return logits.softmax(-1)[..., view.visual_columns].amax((0, 1))


class Place(Scorer):
    def score(self, tokens: tp.VisualTokens) -> Tensor:
        view = tokens.signals["attention"]
        return view.visual_columns.float()


class Noisy(Scorer):
    def score(self, tokens: tp.VisualTokens) -> Tensor:
        view = tokens.signals["attention"]
        return super().score(tokens) + torch.rand(len(view.visual_columns))


class Counts(Scorer):
    calls = 0

    def score(self, tokens: tp.VisualTokens) -> Tensor:
        self.calls += 1
        return super().score(tokens) + self.calls


class Scales(Scorer):
    def score(self, tokens: tp.VisualTokens) -> Tensor:
        view = tokens.signals["attention"]
        view.keys().mul_(0.5)
        return super().score(tokens)


@pytest.mark.parametrize(
    ("scorer", "law"),
    [
        (Scorer, "it-is-a-scorer"),
        (Narrow(), "every-visual-token-has-a-score"),
        (WholePrompt(), "every-visual-token-has-a-score"),
        (Noisy(), "the-same-bits-give-the-same-scores"),
        (Counts(), "a-row-is-scored-on-its-own"),
        (Centred(), "what-padding-holds-does-not-matter"),
        (Place(), "more-padding-does-not-matter"),
        (Scales(), "nothing-is-changed"),
        (Attentive(), "memory-is-bounded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_scorer_fails(scorer: Any, law: str) -> None:
    breaks(SCORER_LAWS, scorer, law)


def test_the_models_of_the_broken_scorers_are_lawful_otherwise() -> None:
    check_scorer(Scorer())
    for law in SCORER_LAWS:
        if law.name != "memory-is-bounded":
            law.test(Attentive())


class TestBrokenCaches:
    """One part of the shipped cache replaced at a time."""

    @pytest.mark.parametrize(
        ("part", "law"),
        [
            ("order", "a-cut-keeps-the-tokens-asked-for"),
            ("view", "a-cut-frees-memory"),
            ("logical", "logical-and-stored-length-are-kept-apart"),
            ("offset", "logical-and-stored-length-are-kept-apart"),
            ("prepend", "new-tokens-follow-the-kept"),
            ("open", "a-ragged-cache-needs-a-session"),
            ("rows", "rows-travel-with-their-mask"),
            ("crop", "only-tokens-stored-without-gaps-can-be-cropped"),
            ("reset", "a-reset-forgets-everything"),
            ("lenient", "a-wrong-cut-is-refused"),
        ],
    )
    def test_fails(self, part: str, law: str, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("transformers")
        from transformers.cache_utils import DynamicLayer

        layer, cut = tp.PrunableLayer, tp.PrunableLayer.cut

        def wrong_cut(self: Any, index: Tensor, mask: Tensor | None) -> None:
            if part == "lenient":
                index = index[: self.keys.shape[0], : self.keys.shape[2]]
                mask = None if mask is None else mask[: self.keys.shape[0], : self.keys.shape[2]]
            cut(self, index, mask)
            if part == "order":
                self.keys = self.keys.flip(2)
            if part == "view":
                spare = [torch.cat([x, x], dim=2)[:, :, : x.shape[2]] for x in (self.keys, self.values)]
                self.keys, self.values = spare

        def prepend(self: Any, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not self.is_initialized:
                return DynamicLayer.update(self, keys, values)
            self.keys, self.values = torch.cat([keys, self.keys], 2), torch.cat([values, self.values], 2)
            return self.keys, self.values

        broken: dict[str, tuple[str, Any]] = {
            "order": ("cut", wrong_cut),
            "view": ("cut", wrong_cut),
            "lenient": ("cut", wrong_cut),
            "logical": ("get_seq_length", lambda self: self.stored),
            "offset": ("get_mask_sizes", lambda self, query_length: (self.stored + query_length, 0)),
            "prepend": ("update", prepend),
            "open": ("_require_session", lambda self: None),
            "rows": ("_move_rows", lambda self, move: None),
            "crop": ("crop", DynamicLayer.crop),
            "reset": ("reset", DynamicLayer.reset),
        }
        monkeypatch.setattr(layer, *broken[part])
        breaks(CACHE_LAWS, tp.PrunableDynamicCache, law)


@given(visual_tokens())
def test_visual_tokens_are_finite(tokens: tp.VisualTokens) -> None:
    assert tokens.is_full_grid
    tokens.require_finite()


def test_every_kind_of_features_is_drawn() -> None:
    seen: dict[str, set[object]] = {"dtype": set(), "equal": set(), "zero": set(), "scale": set()}

    @given(visual_tokens())
    def look(tokens: tp.VisualTokens) -> None:
        features = tokens.features.double()
        seen["dtype"].add(tokens.features.dtype)
        seen["equal"].add(bool((features == features[0]).all()) and len(tokens) > 3)
        seen["zero"].add(not bool(features.any()))
        seen["scale"].add("huge" if features.abs().max() > 500 else "tiny" if 0 < features.abs().max() < 1e-2 else "")

    look()
    assert seen["dtype"] == {torch.float32, torch.bfloat16, torch.float16, torch.float64}
    assert seen["equal"] == seen["zero"] == {True, False}
    assert seen["scale"] == {"huge", "tiny", ""}
    assert len(FEATURES) == 7


@given(token_plans(), st.data())
def test_plans_are_lawful_and_compose(plan: tp.TokenPlan, data: st.DataObject) -> None:
    after = data.draw(token_plans(plan.kept))
    whole = plan.validate().then(after).validate()
    numbers = torch.arange(plan.total)
    assert torch.equal(whole.pick(numbers), after.pick(plan.pick(numbers)))
    assert torch.equal(whole.sum(numbers), after.sum(plan.sum(numbers)))


@given(attention_views())
def test_views_are_well_formed(view: tp.AttentionView) -> None:
    assert view.queries().shape[0] % view.keys().shape[0] == 0
    assert view.valid_keys[view.visual_columns].all()
    assert int(view.visual_columns.max()) < int(view.text_rows.min())
    assert view.queries(True) is view.queries(True)


@pytest.mark.parametrize("missing", ["hypothesis", "pytest"])
def test_without_its_extra_the_kit_says_what_to_install(missing: str) -> None:
    code = (
        "import importlib.util as u\n"
        f"real = u.find_spec; u.find_spec = lambda name, *a: None if name == {missing!r} else real(name, *a)\n"
        "import tokenprune.testing"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last == f'ModuleNotFoundError: tokenprune.testing needs {missing}: pip install "tokenprune-vlm[testing]"'
