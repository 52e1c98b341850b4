# SPDX-License-Identifier: Apache-2.0
"""Showing what the logger ``tokenprune`` says, for the time of one call."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def logged(verbose: bool) -> Generator[None, None, None]:
    """While this is open, messages of level INFO are logged; to stderr where the program has set up no logging."""
    if not verbose:
        yield
        return
    logger = logging.getLogger("tokenprune")
    level, handler = logger.level, None
    logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        if handler is not None:
            logger.removeHandler(handler)
