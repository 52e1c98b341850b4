# SPDX-License-Identifier: Apache-2.0
"""Where the signals of a prefill's visual tokens come from: the vision encoder, the caller, and the prompt's text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tokenprune.carried import MERGE, SUM
from tokenprune.device import upload
from tokenprune.errors import InvalidValueError, UnsupportedModeError
from tokenprune.messages import shown
from tokenprune.operator import BEFORE_LLM
from tokenprune.runtime.prefill import Prefill
from tokenprune.runtime.state import RowState
from tokenprune.signals import (
    ATTENTION_BEFORE,
    ATTENTION_NEXT,
    HIDDEN_BEFORE,
    OF_THE_ENCODER,
    RULES,
    check_signals,
)
from tokenprune.stage import Stage
from tokenprune.tokens import VisualTokens

Given = Mapping[str, Callable[[VisualTokens], Tensor]]
"""What a caller knows of visual tokens: the name of a signal -> its values ``(N, ...)`` for one video or image."""

Recall = Callable[[Iterable[Tensor]], Sequence[Mapping[str, Tensor]]]
"""Features ``(N, D)`` of several videos and images -> the encoder's signals of each, as far as they are known."""

BY_TOKEN = tuple(name for name, rule in RULES.items() if rule in (SUM, MERGE))


def check_given(signals: object) -> Given:
    """What a caller gives to :func:`tokenprune.attach`, as a dictionary.

    Raises:
        InvalidValueError: no mapping, a name that is no signal of each token, or a value that cannot be called.
    """
    if signals is None:
        return {}
    if not isinstance(signals, Mapping):
        raise InvalidValueError(
            f"signals must map a signal's name to a function of visual tokens, got {shown(signals)}"
        )
    for name, function in signals.items():
        if name not in BY_TOKEN:
            raise InvalidValueError(f"{shown(name)} cannot be given; signals has names among {', '.join(BY_TOKEN)}")
        if not callable(function):
            raise InvalidValueError(f"signals[{name!r}] must be a function of visual tokens, got {shown(function)}")
    return dict(signals)


def require_sources(stages: Sequence[Stage], given: Given) -> None:
    """Raise where an operator needs a signal that nothing will provide in any model.

    Raises:
        InvalidValueError: ``relevance`` is needed, and not given.
        UnsupportedModeError: attention, or what enters the LLM, is needed before there is any.
    """
    for stage in stages:
        if "relevance" in stage.needs and "relevance" not in given:
            raise InvalidValueError(
                f'{stage.name} needs the signal relevance, which only you can give: attach(..., signals={{"relevance": '
                "f}), where f(tokens) -> (N,), higher for what matters more; "
                'CDPruner(relevance="text") reads the question instead'
            )
        early = {"attention", "embeddings"} & set(stage.needs) if stage.site == BEFORE_LLM else ()
        if early:
            raise UnsupportedModeError(
                f"{stage.name} needs {', '.join(sorted(early))}, but acts before the LLM, where there is none"
            )


def require_layers(stages: Sequence[Stage], depth: int) -> None:
    """Raise where an operator says that it reads a layer that is not there, or that will have run on other tokens.

    Raises:
        UnsupportedModeError: it is before the first or after the last layer, or another operator acts in between.
    """
    for stage in stages:
        reads, layer = stage.reads or (), stage.layer
        if layer is None:
            continue
        if layer == 0 and (ATTENTION_BEFORE in reads or HIDDEN_BEFORE in reads):
            raise UnsupportedModeError(f"{stage.name} reads the layer before its own, but acts after the first, 0")
        if layer == depth - 1 and ATTENTION_NEXT in reads:
            raise UnsupportedModeError(f"{stage.name} reads the layer after its own, but acts after the last, {layer}")
        if ATTENTION_BEFORE in reads and any(other.layer == layer - 1 for other in stages):
            raise UnsupportedModeError(f"{stage.name} reads the attention of layer {layer - 1}, where another acts")


def encoder_needs(stages: Sequence[Stage], given: Given) -> dict[str, Stage]:
    """Each signal that the vision encoder has to provide -> the first operator that needs it."""
    needed = {name: stage for stage in reversed(stages) for name in stage.needs}
    return {name: needed[name] for name in OF_THE_ENCODER if name in needed and name not in given}


def fill_signals(prefill: Prefill, embeds: Tensor, given: Given, recall: Recall | None, copies: int) -> None:
    """Give each row what its operators need to know of its visual tokens, before the first of them is asked.

    Args:
        prefill: a prefill that has just begun.
        embeds: ``(B, S, D)`` embeddings of its tokens.
        given: what the caller knows.
        recall: finds what the vision encoder has said of features.
        copies: so many rows that follow each other are copies of one prompt; the caller is asked once for all of them.

    Raises:
        InvalidValueError: the caller's function returns something else than a finite number for each token.
        UnsupportedModeError: the encoder did not run on a video or image under this session.
    """
    stages, rows = prefill.stages, prefill.state.rows
    modalities = {modality for stage in stages for modality in stage.modalities}
    shown_spans = [row.shown(sorted(modalities)) for row in rows]
    from_encoder = encoder_needs(stages, given)
    if from_encoder and recall is not None:
        _take_encoders(rows, shown_spans, embeds, from_encoder, recall)
    needs = {name for stage in stages for name in stage.needs}
    asked = {name: function for name, function in given.items() if name in needs}
    for number, (row, spans) in enumerate(zip(rows, shown_spans)):
        if "text" in needs:
            row.signals["text"] = embeds[number, prefill.state.text_rows[number].to(embeds.device)].detach().float()
        first = number - number % copies
        if asked and spans and number != first and spans == shown_spans[first]:
            row.signals.update({name: rows[first].signals[name] for name in asked})
        elif spans:
            answers = {i: _answers(row.tokens([i], embeds[number], {}), asked) for i in spans}
            row.signals.update(_over_row(row, tuple(asked), answers))


def _take_encoders(
    rows: Sequence[RowState],
    shown_spans: Sequence[list[int]],
    embeds: Tensor,
    needed: Mapping[str, Stage],
    recall: Recall,
) -> None:
    places = [(number, i) for number, spans in enumerate(shown_spans) for i in spans]
    features = (embeds[number, rows[number].places[rows[number].part(i)].to(embeds.device)] for number, i in places)
    found = dict(zip(places, recall(features)))
    for (number, i), signals in found.items():
        missing = next((name for name in needed if name not in signals), None)
        if missing is not None:
            raise UnsupportedModeError(
                f"{needed[missing].name} needs the signal {missing}, but the vision encoder did not run on "
                f"{rows[number].spans[i].modality} {i} of row {number} under this session; pass pixels, or features "
                "that were encoded inside it"
            )
    for number, spans in enumerate(shown_spans):
        if spans:
            own = {i: found[number, i] for i in spans}
            rows[number].signals.update(_over_row(rows[number], tuple(needed), own))


@torch.no_grad()
def _answers(tokens: VisualTokens, asked: Given) -> dict[str, Tensor]:
    """What the caller says of one video or image."""
    answers: dict[str, Tensor] = {}
    for name, function in asked.items():
        answer: Any = function(tokens)
        check_signals({name: answer}, len(tokens))
        if not bool(torch.isfinite(answer).all()):
            raise InvalidValueError(f"signal {name} must be finite, but what was given holds NaN or infinity")
        answers[name] = answer.detach().float()
    return answers


def _over_row(row: RowState, names: Sequence[str], known: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Signals of all visual tokens of a row from those of its spans; tokens that no operator is shown have zeros."""

    def parts(name: str) -> Iterator[Tensor]:
        like = next(iter(known.values()))[name]
        for i, count in enumerate(row.counts):
            value = known[i][name] if i in known else like.new_zeros(count, *like.shape[1:])
            yield upload(value, row.places.device)

    return {name: torch.cat(list(parts(name))) for name in names}
