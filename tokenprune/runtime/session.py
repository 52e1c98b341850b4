# SPDX-License-Identifier: Apache-2.0
"""Attaching a pipeline to a model, and taking it off again without a trace."""

from __future__ import annotations

import sys
import threading
import warnings
import weakref
from collections import deque
from types import TracebackType

from torch import nn

from tokenprune.adapter import Removable
from tokenprune.errors import AlreadyAttachedError, InvalidValueError, TokenPruneWarning, UnsupportedModeError
from tokenprune.messages import shown
from tokenprune.named import RECOMMENDED, AnyPipeline, as_pipeline
from tokenprune.plugins import find_adapter
from tokenprune.runtime.active import ActivePipeline
from tokenprune.runtime.report import Report
from tokenprune.runtime.row_signals import Given, check_given, require_layers, require_sources

KEEP_REPORTS = 8

_attached: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_attaching = threading.Lock()


class Session:
    """A pipeline attached to a model; made by :func:`attach`.

    Use it as a context manager, or call :meth:`detach`. Reports stay readable after that.

    >>> session = tp.attach(model, "default")
    >>> session.report is None  # nothing has run
    True
    >>> session.detach()
    """

    def __init__(
        self,
        model: nn.Module,
        pipeline: AnyPipeline,
        keep_reports: int = KEEP_REPORTS,
        fallback: str | None = None,
        signals: Given | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InvalidValueError(f"model must be a model (torch.nn.Module), got {shown(model)}")
        if isinstance(keep_reports, bool) or not isinstance(keep_reports, int) or keep_reports < 1:
            raise InvalidValueError(f"keep_reports must be a whole number of at least 1, got {shown(keep_reports)}")
        if fallback not in (None, "sdpa"):
            raise InvalidValueError(f'fallback must be "sdpa" or None, got {shown(fallback)}')
        given = check_given(signals)
        if isinstance(pipeline, str) and pipeline == RECOMMENDED:
            fallback = "sdpa"  # by its name it is to run on every model
        self.pipeline = as_pipeline(pipeline)
        _refuse_wrappers(model)
        adapter = find_adapter(model)
        kept: deque[Report] = deque(maxlen=min(keep_reports, sys.maxsize))
        stages = self.pipeline.stages(adapter.depth, adapter.readable)
        require_sources(stages, given)
        require_layers(stages, adapter.depth)
        self._active = ActivePipeline(self.pipeline, adapter, stages, fallback, given, kept)
        self._modules = list(model.modules())
        with _attaching:
            if any(module in _attached for module in self._modules):
                raise AlreadyAttachedError("this model already has a session; detach it first")
            self._handles: list[Removable] = list(adapter.port().install(self._active))
            _attached.update(self._modules)

    @property
    def report(self) -> Report | None:
        """The report of the last prefill that held visual tokens; None before the first."""
        return self._active.reports[-1] if self._active.reports else None

    @property
    def reports(self) -> list[Report]:
        """The last reports, as many as :func:`attach` was told to keep, oldest first."""
        return list(self._active.reports)

    def detach(self) -> None:
        """Take every hook off; doing it twice is harmless.

        A call that another thread is in the middle of is waited for.

        Raises:
            UnsupportedModeError: this thread is in the middle of a call (from a streamer, a hook, an operator).
        """
        self._active.entrance.close()
        with _attaching:
            while self._handles:
                self._handles.pop().remove()
            for module in self._modules:
                _attached.discard(module)
            self._modules = []

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        attached = bool(self._handles)
        self.detach()
        if kind is None and attached and len(self.pipeline) and not self._active.entrance.asked:
            warnings.warn(
                "a session ended in which the model was never called; a thread that calls it must be joined inside the "
                "`with` block",
                TokenPruneWarning,
                stacklevel=2,
            )


def attach(
    model: nn.Module,
    pipeline: AnyPipeline,
    *,
    signals: Given | None = None,
    keep_reports: int = KEEP_REPORTS,
    fallback: str | None = None,
) -> Session:
    """Attach a pipeline to a model: from now on every prefill that holds visual tokens goes through it.

    >>> with tp.attach(model, "recommended") as session:
    ...     ids = model.generate(**inputs, max_new_tokens=4)
    >>> session.report.visual_retained
    [0.15...]

    Args:
        model: a model that an installed adapter knows, possibly inside a wrapper such as PEFT's.
        pipeline: a :class:`tokenprune.Pipeline`, one operator, a sequence of operators, or the name of a preset; an
            empty pipeline only writes reports.
        signals: what only the caller knows of visual tokens: the name of a signal (``"relevance"``) -> a function,
            asked once about each video or image before the first operator, that returns ``(N,)`` numbers, one for each
            of its :class:`tokenprune.VisualTokens`. What no operator needs is ignored.
        keep_reports: how many reports ``session.reports`` holds, at least 1; older ones are forgotten.
        fallback: ``"sdpa"``: run under that attention backend, where the model's own cannot carry attention mass, and
            restore the model's setting on detaching; None: refuse, but for ``"recommended"`` by its name, which runs
            on every model. That it happens is said once, in a :class:`tokenprune.TokenPruneWarning`.

    Returns:
        The session; ``with tokenprune.attach(model, "recommended") as session: model.generate(...)``.

    Raises:
        NoAdapterError: no adapter knows the model.
        AlreadyAttachedError: the model has a session.
        InvalidValueError: an argument is something else, a selector's layer lies beyond the model's depth, or an
            operator needs a signal that was not given.
        UnsupportedModeError: the model is compiled or wrapped in a way that cannot be pruned, or an operator needs a
            signal of the vision encoder, and the adapter does not read this model's, or says that it reads a layer that
            there is not.
    """
    return Session(model, pipeline, keep_reports, fallback, signals)


def _refuse_wrappers(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.DataParallel):
            raise UnsupportedModeError("nn.DataParallel runs copies of the model in threads; use one model per process")
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            raise UnsupportedModeError("the model is compiled with torch.compile; attach to the uncompiled model")
