# SPDX-License-Identifier: Apache-2.0
"""The operators and scorers that come with tokenprune, offered like any other plugin's."""

from __future__ import annotations

from collections.abc import Mapping

from tokenprune.hookspecs import hookimpl


@hookimpl
def tokenprune_operators() -> Mapping[str, type]:
    """Every operator and scorer of this package, by class name."""
    from tokenprune.operators.attn_prune import AttnPrune
    from tokenprune.operators.average_pool import AveragePool
    from tokenprune.operators.cdpruner import CDPruner
    from tokenprune.operators.cover import Cover
    from tokenprune.operators.dart import DART
    from tokenprune.operators.divprune import DivPrune
    from tokenprune.operators.dtd import DTD
    from tokenprune.operators.dycoke import DyCoke
    from tokenprune.operators.evs import EVS
    from tokenprune.operators.fastv import FastV
    from tokenprune.operators.fastvid import FastVID
    from tokenprune.operators.flashvid import FlashVID
    from tokenprune.operators.flashvid_inner import FlashVIDInner
    from tokenprune.operators.floc import FLoC
    from tokenprune.operators.framefusion import FrameFusion
    from tokenprune.operators.gleanvid import GleanVID
    from tokenprune.operators.holitom import HoliTom
    from tokenprune.operators.holitom_inner import HoliTomInner
    from tokenprune.operators.infinipot import InfiniPotV
    from tokenprune.operators.knorm import KNorm
    from tokenprune.operators.pyramiddrop import PyramidDrop
    from tokenprune.operators.random import RandomSelect
    from tokenprune.operators.snapkv import SnapKV
    from tokenprune.operators.sparsevlm import SparseVLM
    from tokenprune.operators.st_merge import STMerge
    from tokenprune.operators.sttm import STTM
    from tokenprune.operators.tome import ToMe
    from tokenprune.operators.tova import TOVA
    from tokenprune.operators.ttf import TTF
    from tokenprune.operators.uniform import UniformSelect
    from tokenprune.operators.uniform_prune import RandomPrune, UniformPrune
    from tokenprune.operators.v2drop import V2Drop
    from tokenprune.operators.vcast import VCast
    from tokenprune.operators.vidcom2 import VidCom2
    from tokenprune.operators.visionzip import VisionZip
    from tokenprune.scorers.content import ContentScore
    from tokenprune.scorers.key_norm import KeyNormScore
    from tokenprune.scorers.rope_causal import RopeCausalScore

    mergers = (STMerge, UniformSelect, RandomSelect, AveragePool, Cover, ToMe, FastVID, FlashVID, HoliTom)
    pruners = (CDPruner, DivPrune, DTD, DyCoke, EVS, FLoC, GleanVID, TTF, VCast, VidCom2, VisionZip)
    selectors = (AttnPrune, UniformPrune, RandomPrune)
    inside = (FastV, PyramidDrop, DART, V2Drop, SparseVLM, FlashVIDInner, HoliTomInner, FrameFusion, STTM)
    presses = (SnapKV, KNorm, TOVA, InfiniPotV)
    scorers = (RopeCausalScore, ContentScore, KeyNormScore)
    operators = (*mergers, *pruners, *selectors, *inside, *presses)
    return {operator.__name__: operator for operator in (*operators, *scorers)}
