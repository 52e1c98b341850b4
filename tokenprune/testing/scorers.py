# SPDX-License-Identifier: Apache-2.0
"""The laws of scorers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tokenprune.attention_view import AttentionView
from tokenprune.messages import shown
from tokenprune.operator import TokenScorer
from tokenprune.testing.laws import Law, check_all, law, require
from tokenprune.testing.same import same_bits, unchanged
from tokenprune.testing.strategies import attention_views, seen_by

SCORE_BYTES = 64 * 2**20
TOLERANCE = 1e-5


def check_scorer(scorer: TokenScorer, *, max_examples: int = 20) -> list[str]:
    """Hold a scorer to every law of scorers that speaks about it; as :func:`check_merger`.

    >>> check_scorer(tp.KeyNormScore(), max_examples=2)[0]
    'it-is-a-scorer'

    Raises:
        LawBrokenError: a law does not hold; the message names it.
    """
    return check_all(SCORER_LAWS, scorer, max_examples)


def reads(scorer: TokenScorer) -> bool:
    """Whether the scorer looks at queries or keys at all."""
    return bool(getattr(scorer, "reads_attention", True))


def _view(scorer: TokenScorer, data: st.DataObject) -> AttentionView:
    return data.draw(attention_views())


@law(11)
def it_is_a_scorer(scorer: TokenScorer, data: st.DataObject) -> None:
    """A scorer is an object (no class) with ``score(tokens)``."""
    require(not isinstance(scorer, type) and isinstance(scorer, TokenScorer), f"{shown(scorer)} has no score(tokens)")


@law(8)
def every_visual_token_has_a_score(scorer: TokenScorer, data: st.DataObject) -> None:
    """``(N,)`` finite fp32 scores, whatever the dtype of the model, grouped heads and gaps included."""
    view = _view(scorer, data)
    scores = scorer.score(seen_by(view))
    wanted = tuple(view.visual_columns.shape)
    require(tuple(scores.shape) == wanted, f"scores have shape {tuple(scores.shape)}, not {wanted}")
    require(scores.dtype == torch.float32, f"scores are {scores.dtype}, not float32")
    require(bool(torch.isfinite(scores).all()), f"scores hold NaN or infinity: {scores.tolist()}")
    require(not scores.requires_grad, "scores carry a gradient")


@law(7)
def the_same_bits_give_the_same_scores(scorer: TokenScorer, data: st.DataObject) -> None:
    """Scores hang on the view alone: no random numbers, autocast or inference mode."""
    view = _view(scorer, data)
    expected = scorer.score(seen_by(view))
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            require(same_bits(scorer.score(seen_by(view)), expected), "a second call gave other scores")
    with torch.autocast("cpu", torch.bfloat16):
        require(same_bits(scorer.score(seen_by(view)), expected), "under autocast the scores are others")
    with torch.inference_mode():
        require(same_bits(scorer.score(seen_by(view)), expected), "in inference mode the scores are others")


@law(6)
def a_row_is_scored_on_its_own(scorer: TokenScorer, data: st.DataObject) -> None:
    """Scores of a row are the same whatever rows were scored before it."""
    view = _view(scorer, data)
    expected = scorer.score(seen_by(view))
    scorer.score(seen_by(_view(scorer, data)))
    require(same_bits(scorer.score(seen_by(view)), expected), "after another row the scores are others")


@law(6, applies=reads)
def what_padding_holds_does_not_matter(scorer: TokenScorer, data: st.DataObject) -> None:
    """Whatever keys stand in padding, the scores are the same, bit for bit."""
    view = data.draw(attention_views())
    noisy = _with_keys(view, lambda keys: torch.where(view.valid_keys[:, None], keys, keys * 3 + 5))
    require(
        same_bits(scorer.score(seen_by(noisy)), scorer.score(seen_by(view))),
        "other keys in the padding changed the scores",
    )


@law(6, applies=reads)
def more_padding_does_not_matter(scorer: TokenScorer, data: st.DataObject) -> None:
    """A row padded further on the left has the same scores, to rounding."""
    view = data.draw(attention_views(dtype=st.just(torch.float32)))
    more = data.draw(st.integers(1, 5))
    padded = _with_keys(view, lambda keys: torch.cat([keys[:, :1].expand(-1, more, -1) + 1, keys], dim=1))
    padded = replace(
        padded,
        text_rows=view.text_rows + more,
        visual_columns=view.visual_columns + more,
        valid_keys=torch.cat([view.valid_keys.new_zeros(more), view.valid_keys]),
    )
    close = torch.allclose(scorer.score(seen_by(padded)), scorer.score(seen_by(view)), rtol=TOLERANCE, atol=1e-30)
    require(close, f"{more} more padding columns changed the scores")


@law(10)
def nothing_is_changed(scorer: TokenScorer, data: st.DataObject) -> None:
    """Queries, keys, the scorer itself and the global random generator are left as they were."""
    view = _view(scorer, data)
    tensors = [view.text_rows, view.visual_columns, view.valid_keys]
    if reads(scorer):
        tensors += [read(rotated) for read in (view.queries, view.keys) for rotated in (True, False)]
    with unchanged([f"part {place} of the view" for place in range(len(tensors))], tensors, scorer):
        scorer.score(seen_by(view))


@law(9, applies=reads)
def memory_is_bounded(scorer: TokenScorer, data: st.DataObject) -> None:
    """No tensor of (text rows x keys) above 64 MiB is made; a long prompt is read in pieces."""
    heads, rows, length, dim = 8, 32, 72_000, 2  # 70 MiB of logits in fp32
    queries, keys = torch.ones(heads, rows, dim), torch.ones(heads, length, dim)
    view = AttentionView(
        lambda rotated: queries,
        lambda rotated: keys,
        torch.arange(length - rows, length),
        torch.arange(4, 104),
        torch.ones(length, dtype=torch.bool),
        1.0,
    )
    with _Largest() as largest:
        scorer.score(seen_by(view))
    require(largest.nbytes <= SCORE_BYTES, f"a tensor of {largest.nbytes / 2**20:.0f} MiB was made; 64 are allowed")


SCORER_LAWS: tuple[Law[TokenScorer], ...] = (
    it_is_a_scorer,
    every_visual_token_has_a_score,
    the_same_bits_give_the_same_scores,
    a_row_is_scored_on_its_own,
    what_padding_holds_does_not_matter,
    more_padding_does_not_matter,
    nothing_is_changed,
    memory_is_bounded,
)


def _with_keys(view: AttentionView, change: Callable[[Tensor], Tensor]) -> AttentionView:
    changed = {rotated: change(view.keys(rotated)) for rotated in (True, False)}
    return replace(view, read_keys=lambda rotated: changed[rotated])


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation puts out, views aside."""

    nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor):
                self.nbytes = max(self.nbytes, made.untyped_storage().nbytes())
        return out
