# SPDX-License-Identifier: Apache-2.0
"""Finding a model's parts inside wrappers such as PEFT."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def only_module(model: nn.Module, kind: type[M]) -> M | None:
    """The one submodule (or ``model`` itself) of class ``kind``; None if there is none or more than one."""
    found = [module for module in model.modules() if isinstance(module, kind)]
    return found[0] if len(found) == 1 else None
