# SPDX-License-Identifier: Apache-2.0
"""The families of the table as a plugin; importing this module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from tokenprune.adapter import ModelAdapter
from tokenprune.hf.families.adapter import FamiliesAdapter
from tokenprune.hookspecs import hookimpl


@hookimpl
def tokenprune_requirements() -> str | None:
    """Nothing but the models' library."""
    return None if find_spec("transformers") else 'pip install "tokenprune-vlm[hf]" (missing: transformers)'


@hookimpl
def tokenprune_model_adapters() -> Sequence[ModelAdapter]:
    """One adapter for all of them."""
    return [FamiliesAdapter()]
