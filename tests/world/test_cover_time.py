# SPDX-License-Identifier: Apache-2.0
"""The script that times Cover beside STMerge says something of each, in its order."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("transformers")

import cover_time


def test_every_operator_has_its_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["cover_time.py", "--frames", "1,2", "--rounds", "1"])
    monkeypatch.setattr(cover_time, "WIDTH", 8)
    cover_time.main()
    told = [
        re.fullmatch(r"(\d+) tokens: (\w+) ([\d.]+): \d+ ms", line) for line in capsys.readouterr().out.splitlines()
    ]
    expected = [("Cover", "0.1"), ("STMerge", "0.1"), ("Cover", "0.25"), ("STMerge", "0.25")]
    assert [line and line.groups() for line in told] == [
        (tokens, *each) for tokens in ("288", "576") for each in expected
    ]
