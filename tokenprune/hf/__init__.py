# SPDX-License-Identifier: Apache-2.0
"""What every Hugging Face decoder shares: prunable cache, attention reading, and the hooks that carry a prefill.

Needs transformers, which each name below loads when it is first used; only adapters import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenprune.lazy import homes, loaded_on_use

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
_HOME = homes(__name__, _PUBLIC)

__all__ = [*_HOME]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = loaded_on_use(globals(), _HOME)
