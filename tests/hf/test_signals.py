# SPDX-License-Identifier: Apache-2.0
"""Signals that a caller gives, the text's embeddings, and what is refused because nobody can give it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.prompts import Clip, Placed, image, prompt, shared_model
from hf.running import answers, kept
from torch import Tensor

import tokenprune as tp
from tokenprune.errors import InvalidValueError, UnsupportedModeError

ROWS = [[3, Clip(3, 2, 3), 4], [2, image(2, 2), 3, Clip(2, 2, 3), 1, Clip(2, 2, 2), 5]]


@dataclass(frozen=True)
class Top:
    """Keeps the tokens with the largest of the first signal it needs, and remembers what it was shown."""

    needs: tuple[str, ...] = ("relevance",)
    keep: int = 4
    site: str = "before_llm"
    layer: int = 1
    modalities: tuple[str, ...] = ("video",)
    seen: list[tp.VisualTokens] = field(default_factory=list[tp.VisualTokens], compare=False)

    def budget(self, total: int) -> int:
        return min(self.keep, total)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        self.seen.append(tokens)
        values = tokens.signals[self.needs[0]] if self.needs != ("text",) else tokens.features.norm(dim=-1)
        order = torch.argsort(values, descending=True, stable=True)
        return tp.TokenPlan.keeping(order[: self.budget(len(tokens))].sort().values, len(tokens))


@dataclass(frozen=True)
class InPairs:
    """Merges each token with its neighbour."""

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return tp.TokenPlan(torch.arange(0, len(tokens), 2), torch.arange(len(tokens)) // 2)


@dataclass
class Rising:
    """The later, the more relevant; remembers what it was asked."""

    asked: list[tp.VisualTokens] = field(default_factory=list[tp.VisualTokens])

    def __call__(self, tokens: tp.VisualTokens) -> Tensor:
        self.asked.append(tokens)
        return torch.arange(len(tokens), dtype=torch.float64)


def left_of(placed: Placed, session: tp.Session) -> list[int]:
    """Which tokens are left of the first row's only video."""
    return [column - placed.column for column in kept(session)[0] if 0 <= column - placed.column < placed.clip.count]


@pytest.mark.parametrize("site", ["before_llm", "after_layer"])
@pytest.mark.parametrize("beams", [1, 2])
def test_relevance_is_asked_once_about_each_video(site: str, beams: int) -> None:
    """Also where rows of the batch have none."""
    model, given, rising = shared_model(), prompt([*ROWS, [2, image(2, 2), 3], [9]]), Rising()
    with tp.attach(model, [InPairs(), Top(site=site, keep=3)], signals={"relevance": rising}) as session:
        answers(model, given, num_beams=beams)
    videos = given.placed("video")
    assert [tokens.grid for tokens in rising.asked] == [(p.clip.frames, p.clip.height, p.clip.width) for p in videos]
    assert all(tokens.is_full_grid and tokens.spans[0].modality == "video" for tokens in rising.asked)
    assert left_of(videos[0], session) == [12, 14, 16]


def test_relevance_is_a_mean_of_what_was_merged() -> None:
    model, given, top = shared_model(), prompt(ROWS), Top(keep=3)
    with tp.attach(model, [InPairs(), top], signals={"relevance": Rising()}):
        answers(model, given)
    assert top.seen[0].signals["relevance"].tolist() == [0.5 + 2 * n for n in range(9)]
    assert top.seen[0].signals["relevance"].dtype == torch.float32


def test_a_caller_may_know_what_the_encoder_says() -> None:
    model, given, rising = shared_model(), prompt(ROWS), Rising()
    with tp.attach(model, Top(needs=("encoder_column",)), signals={"encoder_column": rising}) as session:
        assert not model.model.visual._forward_hooks
        answers(model, given)
    assert left_of(given.placed("video")[0], session) == [14, 15, 16, 17]


def test_what_nobody_reads_is_not_asked() -> None:
    model, given, rising = shared_model(), prompt(ROWS), Rising()
    with tp.attach(model, [InPairs()], signals={"relevance": rising}):
        answers(model, given)
    assert not rising.asked


@pytest.mark.parametrize("site", ["before_llm", "after_layer"])
def test_text_is_what_follows_the_last_video(site: str) -> None:
    model, given, top = shared_model(), prompt(ROWS), Top(needs=("text",), site=site, keep=3)
    with tp.attach(model, [InPairs(), top]):
        answers(model, given)
    embeds = model.get_input_embeddings()(given.ids)
    wanted = []
    for row, clips in enumerate(given.clips):
        last = clips[-1].column + clips[-1].clip.count
        shown = 1 if site == "after_layer" else sum(placed.clip.modality == "video" for placed in clips)
        wanted += [embeds[row, last:]] * shown
    assert all(torch.equal(tokens.signals["text"], text) for tokens, text in zip(top.seen, wanted, strict=True))


def test_text_needs_some() -> None:
    model, given = shared_model(), prompt([[3, Clip(3, 2, 3)]])
    short = type(given)(given.ids[:, :-1], given.mask[:, :-1], given.clips, [(0, given.length - 1)])
    with tp.attach(model, Top(needs=("text",))), pytest.raises(UnsupportedModeError, match="no text after"):
        answers(model, short)


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(3),
        torch.ones(18, 1),
        [1.0] * 18,
        None,
        torch.full((18,), torch.nan),
        torch.full((18,), torch.inf),
    ],
    ids=["too few", "two dimensions", "list", "nothing", "nan", "infinite"],
)
def test_what_is_no_number_for_each_token_is_refused(value: Any) -> None:
    model, given = shared_model(), prompt([[3, Clip(3, 2, 3), 4]])
    with (
        tp.attach(model, Top(), signals={"relevance": lambda tokens: value}),
        pytest.raises(InvalidValueError, match="signal relevance must"),
    ):
        answers(model, given)


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ([], "must map"),
        ({"text": Rising()}, "'text' cannot be given"),
        ({"relevnace": Rising()}, "'relevnace' cannot be given"),
        ({"relevance": torch.ones(18)}, "must be a function"),
    ],
)
def test_what_cannot_be_given_is_refused(signals: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        tp.attach(shared_model(), Top(), signals=signals)


def test_what_nobody_gives_is_refused_when_attached() -> None:
    with pytest.raises(InvalidValueError, match="Top needs the signal relevance, which only you can give"):
        tp.attach(shared_model(), Top())
    with pytest.raises(UnsupportedModeError, match="Top needs attention, but acts before the LLM"):
        tp.attach(shared_model(), Top(needs=("attention",)))


@pytest.mark.parametrize("need", ["encoder_column", "encoder_pooled", "encoder_keys"])
def test_a_model_whose_encoder_is_not_read_refuses(need: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune_qwen25vl.parts.vision_encoder", lambda parts: None)
    model = shared_model()
    with pytest.raises(UnsupportedModeError, match=f"Top needs the signal {need}, but the adapter of Qwen2_5_VL"):
        tp.attach(model, Top(needs=(need,)))
    tp.attach(model, []).detach()


@dataclass(frozen=True)
class Rows:
    """Keeps three tokens after layer 1, and remembers how the text attends to all of them."""

    needs: tuple[str, ...] = ("attention",)
    site: str = "after_layer"
    layer: int = 1
    seen: list[dict[str, Tensor]] = field(default_factory=list[dict[str, Tensor]], compare=False)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        view = tokens.signals["attention"]
        self.seen.append({"text": view.rows("text"), "last": view.rows("last"), "2": view.rows(2)})
        return tp.TokenPlan.keeping(torch.arange(3), len(tokens))


def test_rows_are_what_the_layer_itself_attends_to() -> None:
    model, given, rows = shared_model("eager"), prompt(ROWS), Rows()
    with torch.no_grad():
        whole = model(**given.inputs(), output_attentions=True).attentions[rows.layer]
    with tp.attach(model, rows):
        answers(model, given)
    for row, (found, clips) in enumerate(zip(rows.seen, given.clips, strict=True)):
        videos = [placed for placed in clips if placed.clip.modality == "video"]
        columns = [column for p in videos for column in range(p.column, p.column + p.clip.count)]
        wanted = whole[row, :, clips[-1].column + clips[-1].clip.count :, columns]
        for which, some in (("text", wanted), ("last", wanted[:, -1:]), ("2", wanted[:, -2:])):
            torch.testing.assert_close(found[which], some, rtol=1e-5, atol=1e-7)
