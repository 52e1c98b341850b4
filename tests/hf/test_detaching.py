# SPDX-License-Identifier: Apache-2.0
"""When a session may end: after the calls in it, wherever they run, and never in the middle of one."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.prompts import Clip, prompt, shared_model
from hf.running import answers, counted, kept, sequences, state_of
from qwen25vl.tiny import tiny_processor
from transformers import TextIteratorStreamer

import tokenprune as tp

PIPE = tp.Pipeline([tp.STMerge(keep_ratio=0.7), tp.AttnPrune(layer=1, keep_ratio=0.5)])
EMPTY = tp.Pipeline([])
ONE = prompt([[5, Clip(3, 2, 3), 6]])
TEXT = prompt([[7]])


class Streamer:
    """Does something at every token, the prompt's included."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def put(self, value: torch.Tensor) -> None:
        self.act()

    def end(self) -> None:
        pass


@dataclass(frozen=True)
class Acting:
    """A merger that keeps everything, and does something."""

    act: Callable[[], Any]

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        self.act()
        return tp.TokenPlan(torch.arange(len(tokens)), torch.arange(len(tokens)))


@dataclass
class Held:
    """A thread that waits in the middle of what it does."""

    inside: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    result: list[Any] = field(default_factory=list[Any])

    def wait(self, *args: Any) -> None:
        self.inside.set()
        assert self.go_on.wait(60)


@contextmanager
def in_thread(held: Held, work: Callable[[], Any]) -> Iterator[threading.Thread]:
    """Another thread is in the middle of ``work`` at the beginning of the block, and at its end."""
    thread = threading.Thread(target=lambda: held.result.append(work()))
    thread.start()
    try:
        assert held.inside.wait(60)
        yield thread
    finally:
        held.go_on.set()
        thread.join()


# --- streaming -------------------------------------------------------------------------------------------------------


def test_a_block_in_which_nothing_ran_warns() -> None:
    model, ready = shared_model(), threading.Event()
    result: list[Any] = []

    def late(generate: Any) -> None:
        assert ready.wait(60)
        try:
            generate(**ONE.inputs(), max_new_tokens=2)
        except tp.UnsupportedModeError as error:
            result.append(str(error))

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with tp.attach(model, PIPE):
            thread = threading.Thread(target=late, args=(model.generate,))
            thread.start()
    assert [warning.category for warning in found] == [tp.TokenPruneWarning]
    assert "joined inside" in str(found[0].message)
    assert found[0].filename == __file__
    with counted(model) as calls:
        ready.set()
        thread.join()
        assert calls.count == 0
    assert "detached before this call began" in result[0]


def test_blocks_that_do_not_warn() -> None:
    model = shared_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with tp.attach(model, PIPE):
            answers(model, TEXT)
        with tp.attach(model, PIPE):
            model(**TEXT.inputs())
        with tp.attach(model, PIPE), pytest.raises(tp.UnsupportedModeError):
            answers(model, ONE, prefill_chunk_size=4)
        with tp.attach(model, PIPE) as session:
            session.detach()
        with tp.attach(model, EMPTY):
            pass
        with pytest.raises(KeyError), tp.attach(model, PIPE):
            raise KeyError
        tp.attach(model, PIPE).detach()


def test_leaving_in_the_middle_of_a_stream() -> None:
    """The block's end waits for the thread, so that every token is of the pruned model."""
    model, tokenizer = shared_model(), tiny_processor().tokenizer
    with tp.attach(model, PIPE) as session:
        expected = tokenizer.decode(answers(model, ONE, new=8)[0])
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
        thread = threading.Thread(target=lambda: answers(model, ONE, new=8, streamer=streamer))
        thread.start()
        first = next(streamer)
    assert len(session.reports) == 2
    assert first + "".join(streamer) == expected
    thread.join()


# --- detaching -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["generate", "forward"])
@pytest.mark.parametrize("pipeline", [PIPE, EMPTY])
def test_detaching_waits_for_another_thread(what: str, pipeline: tp.Pipeline) -> None:
    model, held = shared_model(), Held()
    before = state_of(model)
    with tp.attach(model, pipeline) as session:
        expected = answers(model, ONE) if what == "generate" else model(**ONE.inputs()).logits
        columns, attached = kept(session), state_of(model)
        if what == "generate":
            work = lambda: sequences(model, ONE.inputs(), streamer=Streamer(held.wait))[:, ONE.length :].tolist()  # noqa: E731
        else:
            work = lambda: model(**ONE.inputs()).logits  # noqa: E731
        hook = model.model.language_model.layers[-1].register_forward_pre_hook(held.wait)
        with in_thread(held, work):
            hook.remove()
            done: list[Any] = []
            detaching = threading.Thread(target=lambda: done.append(session.detach()))
            detaching.start()
            time.sleep(0.2)
            assert not done
            assert "generate" in model.__dict__
            assert attached["model"].keys() == state_of(model)["model"].keys()
        detaching.join()
        assert done == [None]
    assert state_of(model) == before
    assert kept(session) == columns
    assert len(session.reports) == 2
    assert held.result[0] == expected if what == "generate" else torch.equal(held.result[0], expected)


@pytest.mark.parametrize(
    ("what", "watching"),
    [("operator", False), *((what, w) for what in ("streamer", "hook", "hook in forward") for w in (False, True))],
)
def test_detaching_inside_a_call_is_refused(what: str, watching: bool) -> None:
    model, ran = shared_model(), []
    before = state_of(model)

    def detach(*args: Any) -> None:
        ran.append(args)
        with pytest.raises(tp.UnsupportedModeError, match="detached in the middle of a call"):
            session.detach()

    def nothing(*args: Any) -> None:
        pass

    pipeline = EMPTY if watching else tp.Pipeline([Acting(detach if what == "operator" else nothing)])
    with tp.attach(model, pipeline) as session:
        layer = model.model.language_model.layers[1]
        hook = layer.register_forward_pre_hook(detach if "hook" in what else nothing)
        if what == "hook in forward":
            model(**ONE.inputs())
        else:
            sequences(model, ONE.inputs(), streamer=Streamer(detach) if what == "streamer" else None)
        hook.remove()
        assert ran
        assert len(session.reports) == 1
        session.detach()
        assert state_of(model) == before
    assert state_of(model) == before


class Stop(BaseException):
    """Ends a thread's forward, as an interrupt does: torch then calls no hook."""


def test_a_forward_interrupted_in_a_thread_holds_nobody_up() -> None:
    model = shared_model()
    before = state_of(model)

    def stop(*args: Any) -> None:
        raise Stop

    def work() -> None:
        with pytest.raises(Stop):
            model(**ONE.inputs())

    for detach_at_once in (True, False):
        with tp.attach(model, PIPE) as session:
            expected = answers(model, ONE)
            hook = model.model.language_model.layers[-1].register_forward_pre_hook(stop)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            hook.remove()
            if not detach_at_once:
                assert answers(model, ONE) == expected
                assert len(session.reports) == 2
        assert state_of(model) == before
