# SPDX-License-Identifier: Apache-2.0
"""The installed distribution: its version, and the stranger's of nearly the same name."""

from __future__ import annotations

from importlib import metadata

DISTRIBUTION = "tokenprune-vlm"
FOREIGN = "tokenprune"


def installed_version() -> str:
    """Version of the installed distribution, or ``"0+unknown"`` for a source tree that was never installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+unknown"


def foreign_distribution() -> str | None:
    """One line about the unrelated distribution ``tokenprune`` if it is installed: its module overwrites ours."""
    try:
        version = metadata.version(FOREIGN)
    except metadata.PackageNotFoundError:
        return None
    return (
        f"the unrelated distribution {FOREIGN} {version} is installed and owns a module of the same name; "
        f"run: pip uninstall {FOREIGN}, then reinstall {DISTRIBUTION}"
    )
