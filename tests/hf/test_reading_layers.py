# SPDX-License-Identifier: Apache-2.0
"""What an operator may read of its layer and its neighbours, against what those layers really compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.names import CACHE, cache_of
from hf.prompts import Clip, Prompt, image, prompt, shared_model
from torch import Tensor

import tokenprune as tp
from tokenprune.errors import InvalidValueError, UnsupportedModeError

ROWS = [[3, Clip(3, 2, 3), 4], [2, image(2, 2), 3, Clip(2, 2, 3), 1, Clip(2, 2, 2), 5]]
Look = Callable[[tp.VisualTokens], Any]


@dataclass(frozen=True)
class Looks:
    """Keeps everything, after having looked."""

    look: Look
    layer: int = 1
    reads: tuple[str, ...] | None = None
    seen: list[Any] = field(default_factory=list[Any])

    site = "after_layer"
    needs = ("attention",)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        self.seen.append(self.look(tokens))
        return tp.TokenPlan.identity(len(tokens))


@dataclass(frozen=True)
class Some(Looks):
    """Keeps three tokens."""

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        super().plan(tokens)
        return tp.TokenPlan.keeping(torch.arange(3), len(tokens))


def view_of(tokens: tp.VisualTokens) -> tp.AttentionView:
    return tokens.signals["attention"]


def run(model: Any, given: Prompt, pipeline: Any, since: int = 0, **more: Any) -> Any:
    with tp.attach(model, pipeline), torch.no_grad():
        return model(**given.inputs(since), **more)


def columns_of(given: Prompt, row: int) -> list[int]:
    videos = [placed for placed in given.clips[row] if placed.clip.modality == "video"]
    return [column for p in videos for column in range(p.column, p.column + p.clip.count)]


def text_of(given: Prompt, row: int) -> int:
    last = given.clips[row][-1]
    return last.column + last.clip.count


@pytest.mark.parametrize("layer", [-1, 0, 1])
def test_rows_keys_values_and_hidden_states(layer: int) -> None:
    """Undeclared, everything can be read; of the next layer all but its hidden states."""

    def look(tokens: tp.VisualTokens) -> tuple[Tensor, ...]:
        view = view_of(tokens)
        keys = view.keys(layer=layer), view.keys(rotated=False, layer=layer)
        return view.rows("text", layer=layer), view.queries(layer=layer), *keys

    model, given, looks = shared_model("eager"), prompt(ROWS), Looks(look)
    out = run(model, given, looks, output_attentions=True, use_cache=True)
    attention, cache = out.attentions[1 + layer], cache_of(out)
    for row, (rows, queries, keys, raw) in enumerate(looks.seen):
        torch.testing.assert_close(
            rows, attention[row, :, text_of(given, row) :, columns_of(given, row)], rtol=1e-5, atol=1e-6
        )
        valid = given.mask[row].bool()
        torch.testing.assert_close(keys[:, valid], cache.layers[1 + layer].keys[row][:, valid], rtol=1e-5, atol=1e-5)
        assert raw.shape == keys.shape
        assert len(queries) == model.config.text_config.num_attention_heads
        torch.testing.assert_close(keys.norm(dim=-1), raw.norm(dim=-1), rtol=1e-4, atol=1e-5)


def test_values_and_hidden_states() -> None:
    def look(tokens: tp.VisualTokens) -> dict[str, Tensor]:
        view = view_of(tokens)
        return {
            "values": view.values(),
            "values before": view.values(layer=-1),
            "hidden": view.hidden(),
            "given": view.hidden(layer=-1),
            "text": view.text_hidden(layer=-1),
            "features": tokens.features,
        }

    model, given, looks = shared_model("eager"), prompt(ROWS), Looks(look)
    out = run(model, given, looks, output_hidden_states=True, use_cache=True)
    for row, seen in enumerate(looks.seen):
        columns = columns_of(given, row)
        assert torch.equal(seen["values"], cache_of(out).layers[1].values[row])
        assert torch.equal(seen["values before"], cache_of(out).layers[0].values[row])
        assert torch.equal(seen["hidden"], out.hidden_states[2][row, columns])
        assert torch.equal(seen["hidden"], seen["features"])
        assert torch.equal(seen["given"], out.hidden_states[1][row, columns])
        assert torch.equal(seen["text"], out.hidden_states[1][row, text_of(given, row) :])


def test_a_later_turn_sees_the_keys_of_earlier_ones() -> None:
    first = prompt([[3, Clip(2, 2, 2), 4]])
    whole = first.then([[2, Clip(2, 2, 3), 3]])
    looks = Looks(lambda tokens: [view_of(tokens).rows("text", layer=layer) for layer in (-1, 0, 1)])
    model = shared_model("eager")
    cache = cache_of(run(model, first, looks, use_cache=True))
    positions = whole.positions(model)
    more = {CACHE: cache, "position_ids": positions[:, :, first.length :], "output_attentions": True}
    out = run(model, whole, looks, first.length, **more)
    columns, start = columns_of(whole, 0)[8:], text_of(whole, 0) - first.length
    for layer, rows in enumerate(looks.seen[-1]):
        torch.testing.assert_close(rows, out.attentions[layer][0, :, start:, columns], rtol=1e-5, atol=1e-6)


def test_with_mass_rows_are_the_softmax_of_the_layer_for_each_original_token() -> None:
    looks = Looks(lambda tokens: ([view_of(tokens).rows("text", layer=n) for n in (-1, 0, 1)], tokens.sizes))
    model, given = shared_model("eager"), prompt([[3, Clip(4, 2, 2), 4]])
    pipeline = tp.Pipeline([tp.ToMe(keep=7), looks], mass="sizes")
    out = run(model, given, pipeline, output_attentions=True)
    [(layers, sizes)] = looks.seen
    assert int(sizes.max()) > 1
    for layer, rows in enumerate(layers):
        wanted = out.attentions[layer][0, :, -rows.shape[1] :, 4:11] / sizes
        torch.testing.assert_close(rows, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "reads", "message"),
    [
        (0, ("attention-1",), "acts after the first"),
        (0, ("hidden-1",), "acts after the first"),
        (3, ("attention+1",), "acts after the last, 3"),
    ],
)
def test_a_layer_that_is_not_there_is_refused_when_attached(layer: int, reads: tuple[str, ...], message: str) -> None:
    with pytest.raises(UnsupportedModeError, match=message):
        tp.attach(shared_model(), Looks(len, layer, reads))


@pytest.mark.parametrize(("layer", "offset"), [(0, -1), (3, 1)])
def test_one_that_did_not_say_so_is_refused_when_it_reads_it(layer: int, offset: int) -> None:
    with pytest.raises(UnsupportedModeError, match="there is none"):
        run(shared_model(), prompt(ROWS), Looks(lambda tokens: view_of(tokens).rows("last", layer=offset), layer))


def test_what_has_not_run_is_refused() -> None:
    with pytest.raises(UnsupportedModeError, match="has not run"):
        run(shared_model(), prompt(ROWS), Looks(lambda tokens: view_of(tokens).hidden(layer=1)))


def test_the_layer_of_another_operator_is_refused() -> None:
    """Its attention was on other tokens; the hidden states, and the cache that has been cut since, are at hand."""
    model, given = shared_model(), prompt(ROWS)
    looks = Looks(lambda tokens: (view_of(tokens).hidden(layer=-1), view_of(tokens).values(layer=-1)))
    run(model, given, [Some(len, layer=0), looks], use_cache=True)
    assert [len(hidden) for hidden, _ in looks.seen] == [3, 3]
    with pytest.raises(UnsupportedModeError, match="layer 0, where another acts"):
        run(model, given, [Some(len, layer=0), Looks(lambda tokens: view_of(tokens).rows("last", layer=-1))])
    with pytest.raises(UnsupportedModeError, match="layer 0, where another acts"):
        tp.attach(model, [Some(len, layer=0), Looks(len, reads=("attention-1",))])


def test_values_need_a_cache() -> None:
    model, given, looks = shared_model(), prompt(ROWS), Looks(len, reads=("values",))
    with pytest.raises(UnsupportedModeError, match="reads values"):
        run(model, given, looks, use_cache=False)
    assert not looks.seen


@pytest.mark.parametrize(
    ("reads", "watched"),
    [
        (None, [0, 1]),
        ((), []),
        (("features", "hidden-1"), []),
        (("attention",), [1]),
        (("attention-1",), [0]),
        (("attention+1",), []),
    ],
    ids=str,
)
def test_nothing_is_captured_that_is_not_read(reads: tuple[str, ...] | None, watched: list[int]) -> None:
    model = shared_model()
    layers = model.model.language_model.layers

    def look(tokens: tp.VisualTokens) -> tuple[list[int], int]:
        hooked = [n for n, layer in enumerate(layers) if layer.self_attn.k_proj._forward_hooks]
        return hooked, tokens.features.shape[1]

    looks = Looks(look, reads=reads)
    run(model, prompt(ROWS), looks)
    width = model.config.text_config.hidden_size if reads is None or "features" in reads else 0
    assert looks.seen == [(watched, width)] * 2
    assert not any(layer.self_attn.k_proj._forward_hooks for layer in layers)


def test_what_was_not_captured_is_refused() -> None:
    for reads, look in (
        ((), lambda tokens: view_of(tokens).keys()),
        (("attention",), lambda tokens: view_of(tokens).rows("last", layer=-1)),
        (("attention",), lambda tokens: view_of(tokens).rows("last", layer=1)),
    ):
        with pytest.raises(UnsupportedModeError, match="not among its reads"):
            run(shared_model(), prompt(ROWS), Looks(look, reads=reads))


def test_attn_prune_gathers_no_hidden_states() -> None:
    seen: list[int] = []

    @dataclass(frozen=True)
    class Widths(tp.RopeCausalScore):
        def score(self, tokens: tp.VisualTokens) -> Tensor:
            seen.append(tokens.features.shape[1])
            return super().score(tokens)

    run(shared_model(), prompt(ROWS), tp.AttnPrune(layer=1, keep=3, scorer=Widths()))
    assert seen == [0, 0]


def test_a_text_is_asked_for_only_by_those_that_read_it() -> None:
    given = prompt([[3, Clip(3, 2, 3)]])
    short = type(given)(given.ids[:, :-1], given.mask[:, :-1], given.clips, [(0, given.length - 1)])
    looks = Looks(lambda tokens: view_of(tokens).hidden(layer=-1), reads=("hidden-1",))
    run(shared_model(), short, looks)
    assert len(looks.seen[0]) == 18


@pytest.mark.parametrize("reads", ["features", ("hidden+1",), ["features"]])
def test_unknown_reads_are_refused(reads: Any) -> None:
    with pytest.raises(InvalidValueError, match="reads must be a tuple"):
        tp.Pipeline([Looks(len, reads=reads)])
