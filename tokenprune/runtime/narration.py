# SPDX-License-Identifier: Apache-2.0
"""What a prefill tells the logger ``tokenprune`` at level INFO; nothing is looked at where nobody listens."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tokenprune.adapter import VisualSpan
from tokenprune.protocols import TokenSelector
from tokenprune.runtime.prefill import Stage, reads_attention
from tokenprune.view import AttentionView

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


def tell_scores(selector: TokenSelector, layer: int, row: int, view: AttentionView) -> None:
    """Which scores are used, and the shape of the attention that is read for them."""
    if not logger.isEnabledFor(logging.INFO):
        return
    name, count = type(selector.scorer).__name__, len(view.visual_columns)
    if not reads_attention(selector):
        logger.info("row %d: %s scores %d visual tokens after layer %d, no attention read", row, name, count, layer)
        return
    rows, keys, heads = len(view.text_rows), len(view.valid_keys), len(view.queries())
    logger.info(
        "row %d: %s scores %d visual tokens after layer %d from %d text rows x %d keys, %d heads",
        row, name, count, layer, rows, keys, heads,
    )  # fmt: skip


def tell_stages(stages: Sequence[Stage]) -> None:
    """Each stage's counts."""
    for stage in stages if logger.isEnabledFor(logging.INFO) else ():
        place = "before the LLM" if stage.layer is None else f"after layer {stage.layer}"
        logger.info("%s %s: visual tokens %s -> %s", stage.operator, place, stage.before, stage.after)
