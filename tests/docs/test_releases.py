# SPDX-License-Identifier: Apache-2.0
"""The releases said to be tested, tried by the check, allowed by the extra and named in errors are the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tokenprune.hf.release import TESTED

ROOT = Path(__file__).parents[2]


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def test_table_readme_and_errors_name_the_same_releases() -> None:
    table = re.findall(r"^\| (\d+\.\d+\.\d+) \|", text("docs/releases.md"), re.MULTILINE)
    assert table == list(TESTED)
    assert f"tested: {', '.join(TESTED)}" in text("README.md")


def test_the_floor_and_the_ceiling_are_the_tested_ones() -> None:
    pins = set(re.findall(r'"transformers>=([\d.]+),<([\d.]+)"', text("pyproject.toml")))
    assert len(pins) == 1
    floor, ceiling = pins.pop()
    assert minor(floor) == minor(TESTED[0])
    newest = minor(TESTED[-1])
    assert minor(ceiling) == (newest[0], newest[1] + 1)


def test_the_check_tries_the_oldest_and_one_between() -> None:
    script = text(".ci/run")
    oldest = re.search(r"^OLDEST_TRANSFORMERS=(.+)$", script, re.MULTILINE)
    middle = re.search(r"^MIDDLE_TRANSFORMERS=(.+)$", script, re.MULTILINE)
    assert oldest is not None
    assert middle is not None
    assert oldest[1] == TESTED[0]
    assert middle[1] in TESTED[1:-1]
