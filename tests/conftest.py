# SPDX-License-Identifier: Apache-2.0
"""One thread a worker, so that they do not fight for cores; the same examples in each run; nothing stays registered."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, here and in subprocesses
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from broken_amx import avoid_broken_amx
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit what was found out
    avoid_broken_amx(os.environ)

settings.register_profile(
    "tokenprune", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tokenprune")


@pytest.fixture(autouse=True)
def _registered_for_now() -> Iterator[None]:
    """What a test registers is gone after it: else every later test of the worker would find it among the methods."""
    from tokenprune.registry import REGISTERED

    before = dict(REGISTERED)
    yield
    REGISTERED.clear()
    REGISTERED.update(before)
