# SPDX-License-Identifier: Apache-2.0
"""What every Hugging Face decoder shares: prunable cache, attention reading, and the hooks that carry a prefill.

Needs transformers; only adapters import it.
"""

from __future__ import annotations

from tokenprune.hf.attention import ProjectionReader
from tokenprune.hf.cache import PrunableDynamicCache, PruneVidDynamicCache, make_prunable
from tokenprune.hf.decoder import HFDecoder
from tokenprune.hf.layer import PrunableLayer
from tokenprune.hf.locate import known_module, only_module
from tokenprune.hf.placeholders import PlaceholderRun, placeholder_runs

__all__ = [
    "HFDecoder",
    "PlaceholderRun",
    "ProjectionReader",
    "PrunableLayer",
    "PrunableDynamicCache",
    "PruneVidDynamicCache",
    "known_module",
    "make_prunable",
    "only_module",
    "placeholder_runs",
]
