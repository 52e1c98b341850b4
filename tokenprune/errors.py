# SPDX-License-Identifier: Apache-2.0
"""Every error tokenprune raises on purpose, under one root."""

from __future__ import annotations


class TokenPruneError(Exception):
    """Root of all errors raised by tokenprune."""


class InvalidValueError(TokenPruneError, ValueError):
    """An argument has a value that is not allowed; the message names argument, value and what is allowed."""


class BudgetError(InvalidValueError):
    """A token budget (``keep_ratio`` or ``keep``) is not a fraction in (0, 1] or a count of at least 1."""


class PlanError(InvalidValueError):
    """A token plan breaks one of its laws (anchors sorted and unique, an anchor mapped to itself, ...)."""


class PipelineFileError(InvalidValueError):
    """A pipeline file or dictionary cannot be read: unknown operator, wrong version or wrong types."""


class ResultFileError(InvalidValueError):
    """A file of results cannot be gone on with: it is damaged, or its results are of other inputs."""


class NoAdapterError(TokenPruneError):
    """No installed adapter knows this model; the message lists the adapters and why each declined."""


class AmbiguousAdapterError(TokenPruneError):
    """Several installed adapters accept this model; the message names them."""


class MissingHookError(TokenPruneError):
    """The adapter found for this model returned nothing where an answer was asked of it."""


class UnsupportedCacheError(TokenPruneError):
    """This KV cache cannot be pruned rightly."""


class UnsupportedModeError(TokenPruneError):
    """This way of running the model cannot be combined with pruning; nothing has been run."""


class UnsupportedReleaseError(TokenPruneError):
    """The installed library does what this release of tokenprune does not know; the message names both versions."""


class AlreadyAttachedError(TokenPruneError):
    """The model already has a session; detach it first."""


class VideoError(TokenPruneError):
    """A video file is missing, empty, cut off, damaged or no video; the message names the file."""


class ModelLoadError(TokenPruneError):
    """A model cannot be loaded: no such checkpoint, an incomplete one, or one of another kind."""


class TokenPruneWarning(UserWarning):
    """Something beside the work at hand is broken, a plugin for one; the result is not affected."""
