# SPDX-License-Identifier: Apache-2.0
"""Slow references of the methods that act inside the LLM or on its cache, by the names they have in the package.

Each is asked about a made-up layer; what it reads of it is the arguments it is called with here.
"""

from __future__ import annotations

from collections.abc import Callable

from . import dart, fastv, framefusion, holitom_inner, infinipotv, knorm, snapkv, sparsevlm, sttm, tova, v2drop
from .heads import ReferenceHeads
from .plain import ReferencePlan

__all__ = ["INSIDE", "PRESSES", "VARIANTS"]

INSIDE: dict[str, Callable[..., ReferencePlan]] = {
    "FastV": lambda seen, **given: fastv.reference(seen.features, seen.rows("last"), **given),
    "SparseVLM": lambda seen, **given: sparsevlm.reference(
        seen.features, seen.rows("text"), seen.embeddings, seen.text, **given
    ),
    "HoliTomInner": lambda seen, **given: holitom_inner.reference(seen.features, seen.rows("last"), **given),
    "V2Drop": lambda seen, **given: v2drop.reference(seen.features, seen.before, **given),
    "DART": lambda seen, **given: dart.reference(
        seen.features, seen.visual_keys, seen.text_features, seen.text_keys, **given
    ),
    "FrameFusion": lambda seen, **given: framefusion.reference(
        seen.features, framefusion.places_of(seen.grid), seen.rows("last"), **given
    ),
    "STTM": lambda seen, **given: sttm.reference(seen.features, seen.grid, **given),
    "FlashVIDInner": lambda seen, **given: fastv.reference(seen.features, seen.rows("last"), **given),
}
"""``(layer, keep=... or keep_ratio=..., and what else the method has)`` -> its plan. PyramidDrop has stages."""

VARIANTS: dict[str, Callable[..., ReferencePlan]] = {
    "DART": lambda seen, **given: dart.reference(seen.features, **given),
    "FrameFusion": lambda seen, **given: framefusion.reference(
        seen.features, framefusion.places_of(seen.grid), **given
    ),
    "STTM": INSIDE["STTM"],
}
"""The forms of features alone, before the LLM (``layer=None``)."""

PRESSES: dict[str, Callable[..., ReferenceHeads]] = {
    "SnapKV": lambda seen, **given: snapkv.reference(seen.rows("text"), len(seen.keys), **given),
    "KNorm": lambda seen, **given: knorm.reference(seen.visual_keys, **given),
    "InfiniPotV": lambda seen, **given: infinipotv.reference(seen.visual_keys, seen.visual_values, seen.grid, **given),
    "TOVA": lambda seen, **given: tova.reference(seen.rows("last"), **given),
}
