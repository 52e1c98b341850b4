# SPDX-License-Identifier: Apache-2.0
"""What a method's class says of where it comes from and what it costs, for :func:`tokenprune.methods`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class About:
    """A class attribute ``about`` of an operator.

    >>> tp.EVS.about.paper
    'arXiv 2510.14624'

    Args:
        paper: where the method was published.
        licence: of the authors' code, ``"no code"``, or ``"none found"`` where code has none; the operator here is
            written from the paper and has the package's own.
        cost: what one plan costs, in N tokens of D components, T frames, K kept tokens, H heads of d components (G that
            hold keys), R text rows and L keys.
        variants: parameters under which the operator is no longer the published method, but a form of it.
    """

    paper: str
    licence: str
    cost: str
    variants: tuple[Mapping[str, Any], ...] = ()
