# SPDX-License-Identifier: Apache-2.0
"""What operators may know of visual tokens beside their features, and how each signal passes a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenprune.carried import GATHER, MERGE, SUM, follow
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.plan import TokenPlan

STAYS, NEVER = "stays", "never"

RULES: Mapping[str, str] = {
    "encoder_column": SUM,  # (N,) column mean of the vision encoder's last full attention
    "encoder_pooled": SUM,  # (N,) its pooled-query form
    "encoder_keys": MERGE,  # (N, d) its keys, head mean
    "relevance": MERGE,  # (N,) higher is more relevant; given by a caller
    "embeddings": GATHER,  # (N, D) fp32 features that entered the LLM; inside it only
    "text": STAYS,  # (R, D) embeddings of the text after the video
    "attention": NEVER,  # an AttentionView of one layer, which another plan's tokens no longer fit
}
"""Every signal there is -> how it is carried: summed, mixed as the features are, picked, unchanged, or not at all."""

OF_THE_ENCODER = ("encoder_column", "encoder_pooled", "encoder_keys")

FEATURES, ATTENTION, VALUES = "features", "attention", "values"
ATTENTION_BEFORE, ATTENTION_NEXT, HIDDEN_BEFORE = "attention-1", "attention+1", "hidden-1"
READS = (FEATURES, ATTENTION, VALUES, ATTENTION_BEFORE, ATTENTION_NEXT, HIDDEN_BEFORE)
"""What an operator inside the LLM may say that it reads: its tokens' features, queries and keys of its own layer, that
layer's values, queries and keys of the layer before or after it, and the hidden states before its own layer."""


def check_needs(name: str, needs: object) -> tuple[str, ...]:
    """``needs`` as a tuple of known signal names.

    >>> check_needs("Mine", ("relevance",))
    ('relevance',)

    Raises:
        InvalidValueError: no tuple, or a name that no signal has.
    """
    if not isinstance(needs, tuple) or any(need not in RULES for need in needs):
        raise InvalidValueError(f"{name}.needs must be a tuple of signals among {', '.join(RULES)}, got {shown(needs)}")
    return needs


def check_reads(name: str, reads: object) -> tuple[str, ...] | None:
    """``reads`` as a tuple of :data:`READS`; None, where an operator does not say, stands for all of them.

    >>> check_reads("Mine", ("attention", "values"))
    ('attention', 'values')

    Raises:
        InvalidValueError: no tuple, or a name that is not among them.
    """
    if reads is not None and (not isinstance(reads, tuple) or any(read not in READS for read in reads)):
        raise InvalidValueError(f"{name}.reads must be a tuple of {', '.join(READS)}, got {shown(reads)}")
    return reads


def check_signals(signals: Mapping[str, Any], count: int) -> None:
    """Raise :class:`InvalidValueError` for an unknown signal, or one that does not have ``count`` rows.

    >>> check_signals({"relevance": torch.zeros(4)}, count=4)
    """
    for name, value in signals.items():
        if name not in RULES:
            raise InvalidValueError(f"{shown(name)} is no signal; there are {', '.join(RULES)}")
        if RULES[name] in (GATHER, MERGE, SUM):
            wanted = 2 if name in ("encoder_keys", "embeddings") else 1
            if not isinstance(value, Tensor) or value.ndim != wanted or len(value) != count:
                found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InvalidValueError(f"signal {name} must have {wanted} dimension(s) and {count} rows, got {found}")


def carry_signals(signals: Mapping[str, Any], plan: TokenPlan) -> dict[str, Any]:
    """The signals of the tokens that ``plan`` leaves, each by its rule.

    >>> carry_signals({"encoder_column": torch.tensor([1.0, 2.0, 3.0])}, TokenPlan.keeping(torch.tensor([0, 2]), 3))
    {'encoder_column': tensor([1., 3.])}
    """
    return {
        name: value if RULES[name] == STAYS else follow(value, plan, RULES[name])
        for name, value in signals.items()
        if RULES[name] != NEVER
    }
