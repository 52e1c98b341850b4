# SPDX-License-Identifier: Apache-2.0
"""A decoder layer, as an option names it."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown

LayerOption = Annotated[
    str | None,
    typer.Option(
        help="Prune after this decoder layer, an index from 0, or a fraction of the depth such as 0.36: "
        "--method where it acts inside the LLM, or stage 2.",
        metavar="N|FRACTION",
        show_default=False,
    ),
]


def parse_layer(text: str) -> int | float:
    """``"10"`` is layer 10, ``"0.36"`` a fraction of the depth; what lies outside is for the operator to refuse."""
    try:
        return int(text) if re.fullmatch(r"[+-]?\d+", text.strip()) else float(text)
    except ValueError:
        raise InvalidValueError(
            f"layer must be a 0-based layer index (int) or a fraction of the depth (float in (0, 1)), got {shown(text)}"
        ) from None
