# SPDX-License-Identifier: Apache-2.0
"""Random plans, small enough to check by hand."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from tokenprune.plan import TokenPlan

# Quarters: products and sums of a few of them are exact in fp32, so that laws can be checked to the bit.
quarters = st.integers(0, 8).map(lambda n: n / 4)


@st.composite
def plans(draw: st.DrawFn, total: int | None = None, weighted: bool | None = None, max_total: int = 10) -> TokenPlan:
    """A valid plan: any anchors, every other token merged into one of them or dropped."""
    total = draw(st.integers(0, max_total)) if total is None else total
    anchors = [index for index in range(total) if draw(st.booleans())]
    place_of = {anchor: place for place, anchor in enumerate(anchors)}
    assign = [
        place_of[index] if index in place_of else draw(st.integers(-1, len(anchors) - 1)) for index in range(total)
    ]
    weights = None
    if draw(st.booleans()) if weighted is None else weighted:
        values = [draw(quarters) + (0.25 if index in place_of else 0.0) for index in range(total)]
        weights = torch.tensor(values, dtype=torch.float32)
    blocks = None
    if draw(st.booleans()):
        blocks = torch.tensor([draw(st.integers(0, 3)) for _ in anchors], dtype=torch.int64)
    plan = TokenPlan(torch.tensor(anchors, dtype=torch.int64), torch.tensor(assign, dtype=torch.int64), weights, blocks)
    return plan.validate()


@st.composite
def chains(draw: st.DrawFn, length: int) -> list[TokenPlan]:
    """Plans that can follow one another."""
    chain = [draw(plans())]
    while len(chain) < length:
        chain.append(draw(plans(total=chain[-1].kept)))
    return chain


@st.composite
def columns(draw: st.DrawFn, count: int, spare: int = 6) -> tuple[torch.Tensor, int]:
    """``count`` strictly increasing columns in a row, and the length of the row."""
    length = count + draw(st.integers(0, spare))
    chosen = draw(st.permutations(range(length)))[:count]
    return torch.tensor(sorted(chosen), dtype=torch.int64), length
