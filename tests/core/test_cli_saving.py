# SPDX-License-Identifier: Apache-2.0
"""The line that says what pruning saved: what is known, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tokenprune.cli._saving import Saving, saving


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (Saving(288, 41, 288 / 41, 4.4), "288 -> 41 visual tokens (7.0x fewer), KV 4.4x smaller"),
        (Saving(288, 41, 288 / 41, None), "288 -> 41 visual tokens (7.0x fewer)"),
        (Saving(288, 288, 1.0, 1.0), "288 -> 288 visual tokens, KV about as large"),
        (Saving(288, 0, None, 9.96), "288 -> 0 visual tokens, KV 10.0x smaller"),
        (
            Saving(288, 41, 288 / 41, 4.4, 3.46, True),
            "288 -> 41 visual tokens (7.0x fewer), KV 4.4x smaller, prefill 3.5x faster, same answer",
        ),
        (
            Saving(288, 144, 2.0, 1.8, 0.5, False),
            "288 -> 144 visual tokens (2.0x fewer), KV 1.8x smaller, prefill 2.0x slower, another answer",
        ),
        (
            Saving(288, 144, 2.0, 1.8, 0.97, True),
            "288 -> 144 visual tokens (2.0x fewer), KV 1.8x smaller, prefill about as fast, same answer",
        ),
    ],
)
def test_the_line(given: Saving, line: str) -> None:
    assert given.line() == line


def answered(seconds: float, **report: Any) -> dict[str, Any]:
    stages = [{"visual_after": [30]}, {"visual_after": [10]}]
    counts = {"visual_tokens": [40], "stages": stages, "kv_bytes": 100, "kv_bytes_unpruned": 250, **report}
    return {"seconds": {"prefill": seconds}, "report": counts}


def test_what_it_is_made_of() -> None:
    assert saving(answered(2.0), None, None) == Saving(40, 10, 4.0, 2.5)
    assert saving(answered(2.0), {"seconds": {"prefill": 3.0}}, False) == Saving(40, 10, 4.0, 2.5, 1.5, False)
    assert saving(answered(2.0, stages=[], kv_bytes=None, kv_bytes_unpruned=None), None, None) == Saving(
        40, 40, 1.0, None
    )
    assert saving({"report": None}, None, None) is None
