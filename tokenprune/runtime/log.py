# SPDX-License-Identifier: Apache-2.0
"""What a prefill tells the logger ``tokenprune`` at level INFO; nothing is looked at where nobody listens."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tokenprune.adapter import VisualSpan
from tokenprune.attention_view import AttentionView
from tokenprune.messages import site_named
from tokenprune.runtime.prefill import StageRecord
from tokenprune.stage import Stage

logger = logging.getLogger("tokenprune")


def tell_spans(spans: Sequence[Sequence[VisualSpan]]) -> None:
    """Where each row's visual tokens are."""
    if not logger.isEnabledFor(logging.INFO):
        return
    for row, found in enumerate(spans):
        for span in found:
            first, last, grid = int(span.columns[0]), int(span.columns[-1]), " x ".join(map(str, span.grid))
            count = len(span.columns)
            logger.info(
                "row %d: %s, %d visual tokens (%s) in columns %d to %d", row, span.modality, count, grid, first, last
            )


def tell_attention(stage: Stage, row: int, view: AttentionView) -> None:
    """The shape of the attention that an operator reads."""
    if not logger.isEnabledFor(logging.INFO):
        return
    name, layer, count = stage.name, stage.layer, len(view.visual_columns)
    scorer = getattr(stage.operator, "scorer", None)
    name = name if scorer is None else type(scorer).__name__
    rows, keys, heads = len(view.text_rows), len(view.valid_keys), len(view.queries())
    logger.info(
        "row %d: %s scores %d visual tokens after layer %d from %d text rows x %d keys, %d heads",
        row, name, count, layer, rows, keys, heads,
    )  # fmt: skip


def tell_stages(records: Sequence[StageRecord]) -> None:
    """Each stage's counts."""
    for record in records if logger.isEnabledFor(logging.INFO) else ():
        stage = record.stage
        place = site_named(stage.site, stage.layer)
        logger.info("%s %s: visual tokens %s -> %s", stage.name, place, record.before, record.after)
