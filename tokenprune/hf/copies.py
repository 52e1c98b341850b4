# SPDX-License-Identifier: Apache-2.0
"""Copies of an attached model: what is deeply copied or pickled is detached, and equals a model never attached."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from tokenprune.adapter import Removable
from tokenprune.hf.in_front import InFront

HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def guard_copies(module: nn.Module, put: Sequence[Removable]) -> InFront:
    """Stand in front of a module's ``__getstate__``, which ``copy``, ``pickle`` and ``torch.save`` all ask.

    Args:
        module: a module with something of a session on it.
        put: all that the session has put on modules, what is still to come included.
    """

    def getstate() -> Any:
        own: Any = getattr(type(module), "__getstate__", None)
        state: Any = dict(module.__dict__) if own is _PLAIN else own(module)
        return _AttachedState(state, _detached(module, state, put)) if isinstance(state, dict) else state

    return InFront(module, "__getstate__", getstate)


_PLAIN: Any = getattr(object, "__getstate__", None)  # every object has one from Python 3.11 on


class _AttachedState(dict[str, Any]):
    """The state of an attached module, as it is handed to whoever copies it.

    A shallow copy shares the module's children and so the session: it takes the state as it is. A deep copy and a
    pickle take ``detached``.
    """

    def __init__(self, state: Mapping[str, Any], detached: dict[str, Any]) -> None:
        super().__init__(state)
        self._detached = detached

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(self._detached, memo)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, (), None, None, iter(self._detached.items())


def _detached(module: nn.Module, state: Mapping[str, Any], put: Sequence[Removable]) -> dict[str, Any]:
    """A module's attributes without those of a session, and without its hooks."""
    detached = dict(state)
    for front in reversed(put):
        if isinstance(front, InFront) and front.module is module:
            front.restore(detached)
    ids = {handle.id for handle in put if isinstance(handle, RemovableHandle)}
    for name in HOOKS:
        if name in detached:
            hooks = detached[name]
            detached[name] = type(hooks)((key, hook) for key, hook in hooks.items() if key not in ids)
    return detached
