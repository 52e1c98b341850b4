# SPDX-License-Identifier: Apache-2.0
"""Finding a model's parts inside wrappers such as PEFT."""

from __future__ import annotations

import weakref
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)

# Names, not modules: a module that is reachable from its model would keep it alive.
_names: weakref.WeakKeyDictionary[nn.Module, dict[type[nn.Module], str]] = weakref.WeakKeyDictionary()


def only_module(model: nn.Module, kind: type[M]) -> M | None:
    """The one submodule (or ``model`` itself) of class ``kind``; None if there is none or more than one.

    >>> only_module(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear)
    Linear(in_features=2, out_features=2, bias=True)
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
    if len(found) != 1:
        return None
    name, module = found[0]
    _names.setdefault(model, {})[kind] = name
    return module


def known_module(model: nn.Module, kind: type[M]) -> M | None:
    """What :func:`only_module` found in this model before, where it is still there; else it is looked for.

    Quick, for hooks that are called with each prefill: a walk over the modules of a large model takes milliseconds.

    >>> known_module(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.ReLU)
    ReLU()
    """
    name = _names.get(model, {}).get(kind)
    if name is not None:
        try:
            module = model.get_submodule(name)
        except AttributeError:
            return only_module(model, kind)
        if isinstance(module, kind):
            return module
    return only_module(model, kind)
