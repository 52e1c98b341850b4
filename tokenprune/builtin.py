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
    from tokenprune.operators.cover import Cover
    from tokenprune.operators.divprune import DivPrune
    from tokenprune.operators.dycoke import DyCoke
    from tokenprune.operators.evs import EVS
    from tokenprune.operators.random import RandomSelect
    from tokenprune.operators.st_merge import STMerge
    from tokenprune.operators.uniform import UniformSelect
    from tokenprune.operators.uniform_prune import RandomPrune, UniformPrune
    from tokenprune.operators.vidcom2 import VidCom2
    from tokenprune.operators.visionzip import VisionZip
    from tokenprune.scorers.content import ContentScore
    from tokenprune.scorers.key_norm import KeyNormScore
    from tokenprune.scorers.rope_causal import RopeCausalScore

    mergers = (STMerge, UniformSelect, RandomSelect)
    before_llm = (Cover, EVS, VidCom2, DivPrune, DyCoke, AveragePool, VisionZip)
    selectors = (AttnPrune, UniformPrune, RandomPrune)
    scorers = (RopeCausalScore, ContentScore, KeyNormScore)
    return {operator.__name__: operator for operator in (*mergers, *before_llm, *selectors, *scorers)}
