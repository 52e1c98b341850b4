# SPDX-License-Identifier: Apache-2.0
"""Made-up decoder layers of the slow references as the package hands them to an operator."""

from __future__ import annotations

from dataclasses import replace

import torch
from oracles.seen import Seen

import tokenprune as tp
from tokenprune.attention_view import AttentionView


def view_of(seen: Seen) -> AttentionView:
    """What can be read of the layer, of the one before it, and of the one after it, which has not run."""
    own = _alone(seen)
    before, after = _alone(seen.layer_before()), replace(_alone(seen.next_layer()), read_hidden=None)
    return replace(own, neighbour=lambda layer: after if layer == 1 else before)


def _alone(seen: Seen) -> AttentionView:
    columns, rows = torch.tensor(seen.visual_columns), torch.tensor(seen.text_rows)
    states = torch.full((seen.keys.shape[1], seen.features.shape[1]), torch.nan)  # nobody reads other text
    states[columns], states[rows] = torch.from_numpy(seen.features), torch.from_numpy(seen.text_features)
    return AttentionView(
        read_queries=lambda _: torch.from_numpy(seen.queries),
        read_keys=lambda _: torch.from_numpy(seen.keys),
        text_rows=rows,
        visual_columns=columns,
        valid_keys=torch.ones(seen.keys.shape[1], dtype=torch.bool),
        scaling=seen.queries.shape[2] ** -0.5,
        read_values=lambda: torch.from_numpy(seen.values),
        read_hidden=lambda places: states[places],
    )


def tokens_of(seen: Seen) -> tp.VisualTokens:
    """The layer's tokens with every signal that an operator inside the LLM can need."""
    signals = {
        "attention": view_of(seen),
        "text": torch.from_numpy(seen.text),
        "embeddings": torch.from_numpy(seen.embeddings),
    }
    return tp.VisualTokens(torch.from_numpy(seen.features), seen.grid, signals=signals)
