# SPDX-License-Identifier: Apache-2.0
"""Seeing what reaches a decoder's layers, and whether a model is as it was."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Change = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


@dataclass(eq=False)
class Seen:
    """What one decoder layer was given, one entry a forward."""

    lengths: list[int] = field(default_factory=list)
    rotary: list[tuple[Tensor, ...]] = field(default_factory=list)


@contextmanager
def intercepted(module: nn.Module, change: Change) -> Generator[None]:
    """Let ``change`` see, or replace, what the module's forward is called with, after every hook has had its say."""
    own = vars(module).get("forward")
    forward = module.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = change(args, kwargs)
        return forward(*args, **kwargs)

    module.forward = changed  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own  # type: ignore[method-assign]


@contextmanager
def watched(layers: Sequence[nn.Module]) -> Generator[list[Seen]]:
    """Record what each decoder layer is given: sequence length and rotary embeddings."""
    seen = [Seen() for _ in layers]

    def watcher(record: Seen) -> Change:
        def note(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            hidden = args[0] if args else kwargs["hidden_states"]
            record.lengths.append(hidden.shape[1])
            record.rotary.append(tuple(part.clone() for part in kwargs["position_embeddings"]))
            return args, kwargs

        return note

    with _all([intercepted(layer, watcher(record)) for layer, record in zip(layers, seen)]):
        yield seen


@contextmanager
def _all(contexts: Sequence[Any]) -> Generator[None]:
    if not contexts:
        yield
        return
    with contexts[0], _all(contexts[1:]):
        yield


def fingerprint(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Per module its class, its attributes' names, its own forward, and how many hooks of each kind it has."""
    hooks = [name for name in vars(model) if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))]
    return {
        name: (type(m), sorted(vars(m)), vars(m).get("forward"), [len(vars(m).get(kind, ())) for kind in hooks])
        for name, m in model.named_modules()
    }
