# SPDX-License-Identifier: Apache-2.0
"""The Qwen2.5-VL adapter keeps the laws of adapters."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from testing.qwen_case import QwenCase

from tokenprune.testing import AdapterConformance


class TestQwen25VL(QwenCase, AdapterConformance):
    """Three rows: a video; two images and two videos; text alone."""
