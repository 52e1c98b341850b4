# SPDX-License-Identifier: Apache-2.0
"""What cannot be right in a decoder with linear-attention layers.

Such a layer takes the tokens that it is given into its state, one after the other. A zeroed token still decays the
state, so padding does no harm only where the state is empty: before a row's first token.
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.release import has_states
from tokenprune.operator import AFTER_PREFILL
from tokenprune.runtime.prefill import Prefill
from tokenprune.runtime.state import RowState

_CANNOT, _WHY = "cannot go on from the states of linear-attention layers", "padding between would make them decay"
_ALONE = "ask the rows of a later turn one by one"


def refuse_padding(text: PreTrainedModel, mask: Tensor | None, new: int, past: int) -> None:
    """Refuse padding after the first token of a row.

    Args:
        text: the decoder.
        mask: ``(B, past + new)`` padding mask, or None.
        new: number of new tokens.
        past: tokens that the cache has had.

    Raises:
        UnsupportedModeError: padding on the right, or among the new tokens of a later turn.
    """
    if mask is None or not has_states(text):
        return
    valid = mask[:, -new:].bool()
    if past and not bool(valid.all()):
        raise UnsupportedModeError(f"rows of unequal length {_CANNOT}: {_WHY}; {_ALONE}")
    if bool((valid[:, :-1] & ~valid[:, 1:]).any()):
        raise UnsupportedModeError(
            "padding behind a token would make the states of linear-attention layers decay; pad on the left"
        )


def refuse_unequal(text: PreTrainedModel, prefill: Prefill, past: int) -> None:
    """Refuse a later turn whose rows may not keep equally many tokens, for the shorter would be padded.

    Args:
        text: the decoder.
        prefill: the turn's prefill, before anything is removed.
        past: tokens that the cache has had.

    Raises:
        UnsupportedModeError: rows hold other videos and images than the first, or content decides how many are kept.
    """
    rows = prefill.state.rows
    if not past or len(rows) == 1 or not has_states(text):
        return
    alike = all(_shape(row) == _shape(rows[0]) for row in rows)
    for stage in prefill.stages:
        if stage.site == AFTER_PREFILL or not any(prefill.rows_for(stage)):
            continue
        if not alike or stage.leaves(rows[0].count) is None:
            left = f"{stage.name} may leave rows of unequal length, which"
            raise UnsupportedModeError(f"{left} {_CANNOT}: {_WHY}; {_ALONE}")


def _shape(row: RowState) -> list[tuple[str, int]]:
    return [(span.modality, count) for span, count in zip(row.spans, row.counts)]
