# SPDX-License-Identifier: Apache-2.0
"""What every Hugging Face decoder shares: prunable cache, attention reading, and the hooks that carry a prefill.

Needs transformers, which each name below loads when it is first used; only adapters import it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenprune.hf.attention import ProjectionReader as ProjectionReader
    from tokenprune.hf.cache import PrunableDynamicCache as PrunableDynamicCache
    from tokenprune.hf.cache import PruneVidDynamicCache as PruneVidDynamicCache
    from tokenprune.hf.cache import make_prunable as make_prunable
    from tokenprune.hf.decoder import HFDecoder as HFDecoder
    from tokenprune.hf.layer import PrunableLayer as PrunableLayer
    from tokenprune.hf.locate import known_module as known_module
    from tokenprune.hf.locate import only_module as only_module
    from tokenprune.hf.placeholders import PlaceholderRun as PlaceholderRun
    from tokenprune.hf.placeholders import placeholder_runs as placeholder_runs

_PUBLIC = {
    "attention": "ProjectionReader",
    "cache": "PrunableDynamicCache PruneVidDynamicCache make_prunable",
    "decoder": "HFDecoder",
    "layer": "PrunableLayer",
    "locate": "known_module only_module",
    "placeholders": "PlaceholderRun placeholder_runs",
}
_HOME = {name: f"tokenprune.hf.{module}" for module, names in _PUBLIC.items() for name in names.split()}

__all__ = [*_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'tokenprune.hf' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
