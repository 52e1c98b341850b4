# SPDX-License-Identifier: Apache-2.0
"""Slow references of published methods that act before the LLM, by the names they have in the package.

They are written from definitions alone and share no code with the package: where the two differ, one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from . import (
    average_pool,
    cdpruner,
    cover,
    divprune,
    dtd,
    dycoke,
    evs,
    fastvid,
    flashvid,
    floc,
    gleanvid,
    holitom,
    tome,
    ttf,
    vcast,
    vidcom2,
    visionzip,
)
from .plain import ReferencePlan

__all__ = ["REFERENCES", "ReferencePlan"]

REFERENCES: dict[str, Callable[..., ReferencePlan]] = {
    "Cover": cover.reference,
    "EVS": evs.reference,
    "VidCom2": vidcom2.reference,
    "VCast": vcast.reference,
    "GleanVID": gleanvid.reference,
    "DyCoke": dycoke.reference,
    "DTD": dtd.reference,
    "TTF": ttf.reference,
    "DivPrune": divprune.reference,
    "FLoC": floc.reference,
    "CDPruner": cdpruner.reference,
    "ToMe": tome.reference,
    "HoliTom": holitom.reference,
    "VisionZip": visionzip.reference,
    "FastVID": fastvid.reference,
    "FlashVID": flashvid.reference,
    "AveragePool": average_pool.reference,
}
