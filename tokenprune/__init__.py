# SPDX-License-Identifier: Apache-2.0
"""Composable operators that remove redundant visual tokens from video language models."""

from __future__ import annotations

from tokenprune.distribution import installed_version

__version__ = installed_version()
