# SPDX-License-Identifier: Apache-2.0
"""Running a pruned model, and holding what it answers and reports against the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hf.names import CACHE
from hf.oracle import Oracle
from hf.prompts import TEXT, Prompt
from torch import Tensor

import tokenprune as tp

TOLERANCE = 1e-4


def generate(model: Any, prompt: Prompt, new: int = 4, **more: Any) -> Any:
    """``new`` text tokens, greedily unless told otherwise, with the raw logits of each step; None leaves out."""
    settings: dict[str, Any] = {"do_sample": False, **prompt.inputs(), **more}
    return model.generate(
        **{name: value for name, value in settings.items() if value is not None},
        max_new_tokens=new,
        suppress_tokens=list(range(TEXT, model.config.text_config.vocab_size)),
        output_logits=True,
        return_dict_in_generate=True,
    )


@torch.no_grad()
def forwards(model: Any, talk: Prompt, cache: Any, new: int = 3, masked: bool = True) -> tuple[Prompt, list[Tensor]]:
    """A turn by bare forwards: its new tokens, then greedy decoding, one token a time.

    With the mask of the whole conversation go the new tokens' positions, because the library would compute them for the
    whole; without, it counts from the cache's logical length.
    """
    steps: list[Tensor] = []
    while len(steps) < new:
        past = cache.get_seq_length()
        inputs = talk.inputs(since=past)
        if masked:
            text = (talk.mask.cumsum(1) - 1).clamp(min=0).unsqueeze(0)  # as generate does: packing is read from these
            inputs["position_ids"] = torch.cat([text, talk.positions(model)])[:, :, past:]
        else:
            del inputs["attention_mask"]
        steps.append(model(**inputs, **{CACHE: cache}, use_cache=True).logits[:, -1])
        talk = talk.answered(steps[-1][:, :TEXT].argmax(dim=1, keepdim=True))
    return talk, steps


def agrees(steps: Sequence[Tensor], truth: Oracle, first_column: int) -> None:
    """Assert that ``(B, vocabulary)`` logits of each step are the oracle's from ``first_column`` on."""
    for row in range(len(truth.rows)):
        wanted = truth.at(row, range(first_column, first_column + len(steps)))
        found = torch.stack([step[row] for step in steps]).double()
        worst = float((found - wanted).abs().max())
        assert worst < TOLERANCE, f"row {row}: logits differ by {worst}"


def distance(steps: Sequence[Tensor], other: Oracle, first_column: int) -> float:
    """How far apart the logits are, over all rows and steps: what :func:`agrees` would have noticed."""
    columns = range(first_column, first_column + len(steps))
    found = [torch.stack([step[row] for step in steps]) for row in range(len(other.rows))]
    return max(float((logits - other.at(row, columns)).abs().max()) for row, logits in enumerate(found))


def reports(session: tp.Session, truth: Oracle, stop: int, cache: Any) -> None:
    """Assert what the last report says of the tokens kept of the columns before ``stop``, and of the cache."""
    report = session.report
    kept = [row.kept(stop) for row in truth.rows]
    assert [columns.tolist() for columns in report.kept] == kept
    sources = [[columns.tolist() for columns in row] for row in report.sources]
    assert sources == [row.kept_sources(stop) for row in truth.rows]
    if cache is None:
        assert report.kv_bytes is None
        return
    longest = max(len(columns) for columns in kept)
    _, kv_heads, _, head_dim = cache.layers[0].keys.shape
    per_column = len(kept) * report.expanded * len(cache.layers) * 2 * kv_heads * head_dim * 4
    assert report.kv_bytes == longest * per_column
    assert report.kv_bytes_unpruned == stop * per_column


def stores(cache: Any, logical: int, stored: int) -> None:
    """Assert that every layer stores the same number of tokens, and knows how many there have been."""
    for layer in cache.layers:
        assert layer.keys.shape[2] == layer.values.shape[2] == stored
        assert layer.get_seq_length() == logical
