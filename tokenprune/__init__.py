# SPDX-License-Identifier: Apache-2.0
"""Composable operators that remove redundant visual tokens from video language models.

``import tokenprune as tp``; every name below is loaded when it is first used, so importing the package costs nothing
and needs neither transformers nor any model's extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenprune.distribution import installed_version
from tokenprune.lazy import homes, loaded_on_use

if TYPE_CHECKING:
    from tokenprune.about import About as About
    from tokenprune.adapter import Accepted as Accepted
    from tokenprune.adapter import AttentionReader as AttentionReader
    from tokenprune.adapter import Declined as Declined
    from tokenprune.adapter import DecoderPort as DecoderPort
    from tokenprune.adapter import ModelAdapter as ModelAdapter
    from tokenprune.adapter import ModelPort as ModelPort
    from tokenprune.adapter import Prompt as Prompt
    from tokenprune.adapter import VisualSpan as VisualSpan
    from tokenprune.attention_view import AttentionView as AttentionView
    from tokenprune.budget import Budget as Budget
    from tokenprune.catalogue import Method as Method
    from tokenprune.catalogue import methods as methods
    from tokenprune.errors import AlreadyAttachedError as AlreadyAttachedError
    from tokenprune.errors import AmbiguousAdapterError as AmbiguousAdapterError
    from tokenprune.errors import BudgetError as BudgetError
    from tokenprune.errors import InvalidValueError as InvalidValueError
    from tokenprune.errors import MissingHookError as MissingHookError
    from tokenprune.errors import ModelLoadError as ModelLoadError
    from tokenprune.errors import NoAdapterError as NoAdapterError
    from tokenprune.errors import PipelineFileError as PipelineFileError
    from tokenprune.errors import PlanError as PlanError
    from tokenprune.errors import ResultFileError as ResultFileError
    from tokenprune.errors import TokenPruneError as TokenPruneError
    from tokenprune.errors import TokenPruneWarning as TokenPruneWarning
    from tokenprune.errors import UnsupportedCacheError as UnsupportedCacheError
    from tokenprune.errors import UnsupportedModeError as UnsupportedModeError
    from tokenprune.errors import UnsupportedReleaseError as UnsupportedReleaseError
    from tokenprune.errors import VideoError as VideoError
    from tokenprune.hf.cache import PrunableDynamicCache as PrunableDynamicCache
    from tokenprune.hf.cache import PruneVidDynamicCache as PruneVidDynamicCache
    from tokenprune.hf.layer import PrunableLayer as PrunableLayer
    from tokenprune.hf.vlm_pruner import VLMPruner as VLMPruner
    from tokenprune.hookspecs import hookimpl as hookimpl
    from tokenprune.named import preset as preset
    from tokenprune.named import presets as presets
    from tokenprune.operator import Operator as Operator
    from tokenprune.operator import PrunableCache as PrunableCache
    from tokenprune.operator import TokenMerger as TokenMerger
    from tokenprune.operator import TokenScorer as TokenScorer
    from tokenprune.operator import TokenSelector as TokenSelector
    from tokenprune.operators.attn_prune import AttnPrune as AttnPrune
    from tokenprune.operators.average_pool import AveragePool as AveragePool
    from tokenprune.operators.cdpruner import CDPruner as CDPruner
    from tokenprune.operators.cover import Cover as Cover
    from tokenprune.operators.dart import DART as DART
    from tokenprune.operators.divprune import DivPrune as DivPrune
    from tokenprune.operators.dtd import DTD as DTD
    from tokenprune.operators.dycoke import DyCoke as DyCoke
    from tokenprune.operators.evs import EVS as EVS
    from tokenprune.operators.fastv import FastV as FastV
    from tokenprune.operators.fastvid import FastVID as FastVID
    from tokenprune.operators.flashvid import FlashVID as FlashVID
    from tokenprune.operators.flashvid_inner import FlashVIDInner as FlashVIDInner
    from tokenprune.operators.floc import FLoC as FLoC
    from tokenprune.operators.framefusion import FrameFusion as FrameFusion
    from tokenprune.operators.gleanvid import GleanVID as GleanVID
    from tokenprune.operators.holitom import HoliTom as HoliTom
    from tokenprune.operators.holitom_inner import HoliTomInner as HoliTomInner
    from tokenprune.operators.infinipot import InfiniPotV as InfiniPotV
    from tokenprune.operators.knorm import KNorm as KNorm
    from tokenprune.operators.pyramiddrop import PyramidDrop as PyramidDrop
    from tokenprune.operators.random import RandomSelect as RandomSelect
    from tokenprune.operators.snapkv import SnapKV as SnapKV
    from tokenprune.operators.sparsevlm import SparseVLM as SparseVLM
    from tokenprune.operators.st_merge import STMerge as STMerge
    from tokenprune.operators.sttm import STTM as STTM
    from tokenprune.operators.tome import ToMe as ToMe
    from tokenprune.operators.tova import TOVA as TOVA
    from tokenprune.operators.ttf import TTF as TTF
    from tokenprune.operators.uniform import UniformSelect as UniformSelect
    from tokenprune.operators.uniform_prune import RandomPrune as RandomPrune
    from tokenprune.operators.uniform_prune import UniformPrune as UniformPrune
    from tokenprune.operators.v2drop import V2Drop as V2Drop
    from tokenprune.operators.vcast import VCast as VCast
    from tokenprune.operators.vidcom2 import VidCom2 as VidCom2
    from tokenprune.operators.visionzip import VisionZip as VisionZip
    from tokenprune.pipeline import Pipeline as Pipeline
    from tokenprune.plan import TokenPlan as TokenPlan
    from tokenprune.plugins import PluginInfo as PluginInfo
    from tokenprune.plugins import list_plugins as list_plugins
    from tokenprune.plugins import register as register
    from tokenprune.runtime.report import Report as Report
    from tokenprune.runtime.session import Session as Session
    from tokenprune.runtime.session import attach as attach
    from tokenprune.scorers.content import ContentScore as ContentScore
    from tokenprune.scorers.key_norm import KeyNormScore as KeyNormScore
    from tokenprune.scorers.rope_causal import RopeCausalScore as RopeCausalScore
    from tokenprune.tokens import VisualTokens as VisualTokens

__version__ = installed_version()

# Where each public name lives; a test holds it equal to the imports above.
_PUBLIC = {
    "about": "About",
    "adapter": "Accepted AttentionReader Declined DecoderPort ModelAdapter ModelPort Prompt VisualSpan",
    "budget": "Budget",
    "catalogue": "Method methods",
    "errors": (
        "AlreadyAttachedError AmbiguousAdapterError BudgetError InvalidValueError MissingHookError ModelLoadError "
        "NoAdapterError PipelineFileError PlanError ResultFileError TokenPruneError TokenPruneWarning "
        "UnsupportedCacheError UnsupportedModeError UnsupportedReleaseError VideoError"
    ),
    "hf.cache": "PrunableDynamicCache PruneVidDynamicCache",
    "hf.layer": "PrunableLayer",
    "hf.vlm_pruner": "VLMPruner",
    "hookspecs": "hookimpl",
    "named": "preset presets",
    "operators.attn_prune": "AttnPrune",
    "operators.cover": "Cover",
    "operators.average_pool": "AveragePool",
    "operators.dart": "DART",
    "operators.divprune": "DivPrune",
    "operators.dycoke": "DyCoke",
    "operators.evs": "EVS",
    "operators.flashvid_inner": "FlashVIDInner",
    "operators.framefusion": "FrameFusion",
    "operators.holitom_inner": "HoliTomInner",
    "operators.pyramiddrop": "PyramidDrop",
    "operators.sparsevlm": "SparseVLM",
    "operators.sttm": "STTM",
    "operators.v2drop": "V2Drop",
    "operators.vidcom2": "VidCom2",
    "operators.visionzip": "VisionZip",
    "operators.cdpruner": "CDPruner",
    "operators.dtd": "DTD",
    "operators.fastv": "FastV",
    "operators.fastvid": "FastVID",
    "operators.flashvid": "FlashVID",
    "operators.floc": "FLoC",
    "operators.gleanvid": "GleanVID",
    "operators.holitom": "HoliTom",
    "operators.infinipot": "InfiniPotV",
    "operators.knorm": "KNorm",
    "operators.random": "RandomSelect",
    "operators.snapkv": "SnapKV",
    "operators.tova": "TOVA",
    "operators.st_merge": "STMerge",
    "operators.tome": "ToMe",
    "operators.ttf": "TTF",
    "operators.uniform": "UniformSelect",
    "operators.uniform_prune": "RandomPrune UniformPrune",
    "operators.vcast": "VCast",
    "pipeline": "Pipeline",
    "plan": "TokenPlan",
    "plugins": "PluginInfo list_plugins register",
    "operator": "Operator PrunableCache TokenMerger TokenScorer TokenSelector",
    "runtime.report": "Report",
    "runtime.session": "Session attach",
    "scorers.content": "ContentScore",
    "scorers.key_norm": "KeyNormScore",
    "scorers.rope_causal": "RopeCausalScore",
    "tokens": "VisualTokens",
    "attention_view": "AttentionView",
}
_HOME = homes(__name__, _PUBLIC)

__all__ = [*_HOME, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = loaded_on_use(globals(), _HOME)
