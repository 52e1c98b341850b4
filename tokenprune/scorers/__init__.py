# SPDX-License-Identifier: Apache-2.0
"""Ways to score visual tokens from one layer's attention, and the names by which selectors accept them."""

from __future__ import annotations

from collections.abc import Callable

from tokenprune.errors import InvalidValueError
from tokenprune.messages import meant, shown
from tokenprune.operator import TokenScorer
from tokenprune.scorers.content import ContentScore
from tokenprune.scorers.key_norm import KeyNormScore
from tokenprune.scorers.rope_causal import RopeCausalScore

__all__ = ["SCORERS", "ContentScore", "KeyNormScore", "RopeCausalScore", "as_scorer"]

SCORERS: dict[str, Callable[[], TokenScorer]] = {
    "rope_causal": RopeCausalScore,
    "content": ContentScore,
    "norm": KeyNormScore,
}
"""Short name -> scorer with its default parameters."""


def as_scorer(scorer: str | TokenScorer) -> TokenScorer:
    """The scorer that a name of :data:`SCORERS` stands for; a scorer object is returned as it is.

    >>> as_scorer("content")
    ContentScore(head_reduction='max')

    Raises:
        InvalidValueError: an unknown name, or something without a ``score(view)`` method.
    """
    allowed = f"{', '.join(map(repr, SCORERS))} or an object with a score(view) method"
    if isinstance(scorer, str):
        if scorer not in SCORERS:
            raise InvalidValueError(f"scorer must be {allowed}, got {shown(scorer)}{meant(scorer, SCORERS)}")
        return SCORERS[scorer]()
    if isinstance(scorer, type) or not isinstance(scorer, TokenScorer):
        raise InvalidValueError(f"scorer must be {allowed}, got {shown(scorer)}")
    return scorer
