# SPDX-License-Identifier: Apache-2.0
"""Attaching leaves nothing behind, whatever happens inside; batches do not change what a row loses."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.names import CACHE, cache_of
from hf.prompts import Clip, image, prompt, shared_model
from hf.running import alone, answers, contents, counted, kept, sequences, stacked, state_of
from qwen25vl.tiny import LAYERS, tiny_model

import tokenprune as tp
from tokenprune.errors import PlanError

BOTH = tp.Pipeline([tp.STMerge(keep_ratio=0.7), tp.AttnPrune(layer=1, keep_ratio=0.5)])
CUT = tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=0.4)])
ROWS = prompt([[5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 3, Clip(2, 2, 3), 7], [4, image(2, 2), 2, Clip(4, 2, 2), 5]])


@dataclass(frozen=True)
class Raising:
    """A merger that fails."""

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        raise ZeroDivisionError("inside a merger")


@dataclass(frozen=True)
class Invalid:
    """A merger whose plan breaks a law: its anchors are not sorted."""

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        assign = torch.full((len(tokens),), -1)
        assign[:2] = torch.tensor([1, 0])
        return tp.TokenPlan(torch.tensor([1, 0]), assign)


@dataclass(frozen=True)
class BadScorer:
    """A scorer that fails in the middle of the decoder."""

    def score(self, tokens: tp.VisualTokens) -> torch.Tensor:
        raise ZeroDivisionError("inside a scorer")


class BadStreamer:
    """Fails, or is interrupted, at the first generated token; the prompt comes before."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error
        self.seen = 0

    def put(self, value: torch.Tensor) -> None:
        self.seen += 1
        if self.seen == 2:
            raise self.error("inside a streamer")

    def end(self) -> None:
        pass


def test_detaching_restores_the_model_exactly() -> None:
    model = shared_model()
    before, plain = state_of(model), answers(model, ROWS)
    with tp.attach(model, BOTH):
        assert "generate" in model.__dict__
        assert state_of(model) != before
        pruned = answers(model, ROWS)
    assert state_of(model) == before
    assert "generate" not in model.__dict__
    assert pruned != plain
    assert answers(model, ROWS) == plain


def test_a_generate_of_ones_own_comes_back() -> None:
    model = tiny_model(layers=2)
    model.generate = mine = lambda **kwargs: "mine"
    with tp.attach(model, CUT):
        assert model.generate is not mine
        assert model.generate() == "mine"
    assert model.__dict__["generate"] is mine


def test_an_error_inside_the_block_detaches() -> None:
    model = shared_model()
    before = state_of(model)
    with pytest.raises(KeyError), tp.attach(model, BOTH):
        raise KeyError("mine")
    assert state_of(model) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_inside_generate_leaves_the_session_usable(error: type[BaseException]) -> None:
    model, one = shared_model(), alone(ROWS, 0)
    before = state_of(model)
    with tp.attach(model, BOTH) as session:
        expected = answers(model, one)
        attached = state_of(model)
        with pytest.raises(error, match="inside a streamer"):
            sequences(model, one.inputs(), streamer=BadStreamer(error))
        assert state_of(model) == attached
        assert answers(model, one) == expected
        assert len(session.reports) == 3
    assert state_of(model) == before


def test_an_interrupt_inside_the_decoder_is_cleared_up() -> None:
    """Torch does not call always-called hooks on an interrupt."""
    model, one = shared_model(), alone(ROWS, 0)
    before = state_of(model)
    last = model.model.language_model.layers[-1]

    def interrupt(module: Any, args: Any) -> None:
        raise KeyboardInterrupt

    for detach_at_once in (True, False):
        with tp.attach(model, BOTH):
            expected = answers(model, one)
            attached = state_of(model)
            handle = last.register_forward_pre_hook(interrupt)
            with pytest.raises(KeyboardInterrupt):
                model(**one.inputs())
            handle.remove()
            if not detach_at_once:
                assert answers(model, one) == expected
                assert state_of(model) == attached
        assert state_of(model) == before


@pytest.mark.parametrize(
    ("operator", "error", "message"),
    [
        (Raising(), ZeroDivisionError, "inside a merger"),
        (Invalid(), PlanError, "strictly increasing"),
        (tp.AttnPrune(layer=1, keep_ratio=0.5, scorer=BadScorer()), ZeroDivisionError, "inside a scorer"),
    ],
)
def test_an_error_inside_an_operator(operator: Any, error: type[Exception], message: str) -> None:
    model = shared_model()
    before, plain = state_of(model), answers(model, ROWS)
    with tp.attach(model, tp.Pipeline([operator])) as session:
        attached = state_of(model)
        for _ in range(2):
            with pytest.raises(error, match=message):
                answers(model, ROWS)
        assert state_of(model) == attached
        assert session.report is None
        assert answers(model, prompt([[6]])) == answers(model, prompt([[6]]))  # text still runs
    assert state_of(model) == before
    assert answers(model, ROWS) == plain


def test_an_error_in_a_merger_leaves_a_passed_cache_empty() -> None:
    model = shared_model()
    cache = tp.PrunableDynamicCache()
    with tp.attach(model, tp.Pipeline([Raising()])), pytest.raises(ZeroDivisionError):
        model(**alone(ROWS, 0).inputs(), **{CACHE: cache})
    assert cache.get_seq_length() == 0
    assert answers(model, alone(ROWS, 0), **{CACHE: cache}) == answers(model, alone(ROWS, 0))


def test_attaching_twice_is_an_error() -> None:
    model = shared_model()
    before = state_of(model)
    with tp.attach(model, CUT):
        attached = state_of(model)
        with pytest.raises(tp.AlreadyAttachedError, match="detach it first"):
            tp.attach(model, CUT)
        assert state_of(model) == attached
    with tp.attach(model, CUT) as session:
        session.detach()
        session.detach()
        with tp.attach(model, CUT):
            pass
    assert state_of(model) == before


def test_attaching_through_a_wrapper_as_well() -> None:
    model = tiny_model(layers=2)

    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

    wrapper = Wrapper()
    with tp.attach(model, CUT), pytest.raises(tp.AlreadyAttachedError):
        tp.attach(wrapper, CUT)
    with tp.attach(wrapper, CUT) as session:
        with pytest.raises(tp.AlreadyAttachedError):
            tp.attach(model, CUT)
        answers(model, ROWS)
        assert session.report is not None


def test_sessions_of_two_models_do_not_meet() -> None:
    one, other = shared_model(), tiny_model(seed=1)
    plain = answers(other, ROWS)
    with tp.attach(one, CUT) as first:
        assert answers(other, ROWS) == plain
        with tp.attach(other, tp.Pipeline([tp.AttnPrune(layer=0, keep=2)])) as second:
            answers(one, ROWS)
            answers(other, ROWS)
            assert len(first.reports) == len(second.reports) == 1
            assert first.report.stages[0]["visual_after"] != second.report.stages[0]["visual_after"] == [2, 2, 2 + 4]
        assert answers(other, ROWS) == plain


def test_sessions_one_after_another_equal_fresh_ones() -> None:
    model = shared_model()
    with tp.attach(model, CUT) as session:
        first = answers(model, ROWS), kept(session)
    with tp.attach(model, BOTH) as session:
        assert (answers(model, ROWS), kept(session)) != first
    with tp.attach(model, CUT) as session:
        assert session.report is None
        assert (answers(model, ROWS), kept(session)) == first


def test_what_cannot_be_attached() -> None:
    model = shared_model()
    before = state_of(model)
    with pytest.raises(tp.InvalidValueError, match=f"layer {LAYERS} lies beyond the model's {LAYERS} decoder layers"):
        tp.attach(model, tp.Pipeline([tp.AttnPrune(layer=LAYERS, keep_ratio=0.5)]))
    with pytest.raises(tp.NoAdapterError, match=r"qwen25vl: Linear is no Qwen2\.5-VL"):
        tp.attach(torch.nn.Linear(2, 2), CUT)
    with pytest.raises(tp.NoAdapterError, match="ModuleList"):
        tp.attach(torch.nn.ModuleList([model, tiny_model(layers=1)]), CUT)
    with pytest.raises(tp.UnsupportedModeError, match="DataParallel"):
        tp.attach(torch.nn.DataParallel(model), CUT)
    assert state_of(model) == before
    with tp.attach(model, CUT):  # a refused attach has not taken the model
        pass


def test_compiled_models_cannot_be_attached() -> None:
    model = tiny_model(layers=2)
    with pytest.raises(tp.UnsupportedModeError, match=r"torch\.compile"):
        tp.attach(torch.compile(model, backend="eager"), CUT)
    model.compile(backend="eager")
    with pytest.raises(tp.UnsupportedModeError, match=r"torch\.compile"):
        tp.attach(model, CUT)


def test_a_session_reports_only_prefills_with_visual_tokens() -> None:
    model = shared_model()
    text = prompt([[7], [5]])
    with tp.attach(model, CUT) as session:
        assert session.report is None
        assert session.reports == []
        answers(model, text)
        assert session.report is None
        answers(model, ROWS, new=5)
        report = session.report
        assert session.reports == [report]
        described = report.to_dict()
        answers(model, text)
        assert session.report is report
        assert report.to_dict() == described
        answers(model, ROWS)
        assert session.reports[0] is report
        assert len(session.reports) == 2
    assert session.report is session.reports[-1]
    assert session.report.to_dict()["visual_tokens"] == described["visual_tokens"]


def test_inputs_are_not_changed() -> None:
    model = shared_model()
    first = alone(ROWS, 1)
    with tp.attach(model, BOTH):
        inputs = ROWS.inputs()
        copies = copy.deepcopy(inputs)
        answers(model, ROWS)
        assert all(torch.equal(inputs[name], copies[name]) for name in copies)
        model(**inputs, use_cache=False)
        assert all(torch.equal(inputs[name], copies[name]) for name in copies)

        out = sequences(model, first.inputs(), return_dict_in_generate=True)
        earlier = cache_of(out)
        held = contents(copy.deepcopy(earlier))
        talk = first.answered(out.sequences[:, first.length :]).then([[3]])
        sequences(model, talk.inputs() | {"pixel_values_videos": None}, **{CACHE: earlier})
        for layer, (keys, values, *_) in zip(earlier.layers, held):
            assert torch.equal(layer.keys[:, :, : keys.shape[2]], keys)
            assert torch.equal(layer.values[:, :, : values.shape[2]], values)


def test_a_batch_changes_nothing_for_its_rows() -> None:
    """Law 6 through the whole model, where no decision is close (law 6 says so, the seeds here are such)."""
    model = shared_model()
    rows = [alone(ROWS, row) for row in range(3)]
    with tp.attach(model, BOTH) as session:
        found = []
        for one in rows:
            answer = answers(model, one)[0]
            found.append((answer, kept(session)[0]))
        for order in ([0, 1, 2], [2, 0, 1], [1, 2], [0, 0, 2]):
            mixed = stacked([rows[row] for row in order])
            answer = answers(model, mixed)
            for place, row in enumerate(order):
                shift = mixed.length - rows[row].length
                assert answer[place] == found[row][0]
                assert kept(session)[place] == [column + shift for column in found[row][1]]


def test_the_same_twice() -> None:
    model = shared_model()
    runs = []
    with tp.attach(model, BOTH) as session:
        for _ in range(2):
            logits = model(**ROWS.inputs()).logits
            runs.append((logits, kept(session), [[s.tolist() for s in row] for row in session.report.sources]))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]


def test_two_threads_in_one_session() -> None:
    """The second thread is refused while the first is in the middle of its prefill, which goes on undisturbed."""
    model, one = shared_model(), alone(ROWS, 0)
    inside, go_on = threading.Event(), threading.Event()
    result: list[Any] = []

    def wait(module: Any, args: Any) -> None:
        if not inside.is_set():
            inside.set()
            assert go_on.wait(60)

    with tp.attach(model, CUT) as session:
        expected, columns = answers(model, one), kept(session)
        handle = model.model.language_model.layers[0].register_forward_pre_hook(wait)
        thread = threading.Thread(target=lambda: result.append(answers(model, one)))
        thread.start()
        assert inside.wait(60)
        with counted(model) as calls:
            for ask in (
                lambda: answers(model, one),
                lambda: model(**one.inputs()),
                lambda: model.model.language_model(inputs_embeds=torch.zeros(1, 2, 32)),
            ):
                with pytest.raises(tp.UnsupportedModeError, match="two threads"):
                    ask()
            assert calls.count == 0
        go_on.set()
        thread.join()
        handle.remove()
        assert result == [expected]
        assert kept(session) == columns
        assert answers(model, one) == expected
        assert len(session.reports) == 3


def test_an_empty_pipeline_lets_a_second_thread_through() -> None:
    model, one = shared_model(), alone(ROWS, 0)
    expected = answers(model, one)
    found: list[Any] = []

    class Second:
        """Asks from another thread while the first is inside."""

        def put(self, value: torch.Tensor) -> None:
            if not found:
                found.append(None)
                thread = threading.Thread(target=lambda: found.append(answers(model, one)))
                thread.start()
                thread.join()

        def end(self) -> None:
            pass

    with tp.attach(model, tp.Pipeline([])) as session:
        first = sequences(model, one.inputs(), streamer=Second())
    assert first[:, one.length :].tolist() == expected
    assert found[1] == expected
    assert len(session.reports) == 1
