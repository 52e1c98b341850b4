# SPDX-License-Identifier: Apache-2.0
"""The probe of the test suite: what it sets, and when it is not even started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from broken_amx import VARIABLE, WITHOUT_AMX, avoid_broken_amx

DIES = (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
LIVES = (sys.executable, "-c", "")
RAISES = (sys.executable, "-c", "raise SystemExit(1)")


@pytest.fixture
def advertised(tmp_path: Path) -> Path:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu avx512f amx_bf16 amx_tile\n")
    return cpuinfo


def test_a_product_that_dies_switches_amx_off(advertised: Path) -> None:
    environment = {"PATH": "kept"}
    assert avoid_broken_amx(environment, advertised, DIES)
    assert environment == {"PATH": "kept", VARIABLE: WITHOUT_AMX}


@pytest.mark.parametrize("probe", [LIVES, RAISES], ids=["a healthy machine", "no torch"])
def test_nothing_is_set_where_no_signal_ends_it(advertised: Path, probe: tuple[str, ...]) -> None:
    environment: dict[str, str] = {}
    assert not avoid_broken_amx(environment, advertised, probe)
    assert environment == {}


def test_the_probe_is_not_started_without_need(advertised: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("flags : fpu avx512f\n")
    missing = ("a program that does not exist",)
    assert not avoid_broken_amx({}, plain, missing)
    assert not avoid_broken_amx({}, tmp_path / "no such file", missing)
    assert not avoid_broken_amx({VARIABLE: "AVX2"}, advertised, missing)
