# SPDX-License-Identifier: Apache-2.0
"""The command line: ``tokenprune run | sweep | eval | bench | show | methods | plugins``.

Exit codes: 0 done, 1 the job failed (one line on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys

from tokenprune.distribution import foreign_distribution


def main() -> None:
    """Entry point of the ``tokenprune`` script."""
    conflict = foreign_distribution()
    if conflict is not None:
        from tokenprune.cli._output import FAILED, Output

        Output.guess(sys.argv[1:]).error("ConflictError", conflict)
        sys.exit(FAILED)
    try:
        from tokenprune.cli.app import app

        app()
    except KeyboardInterrupt:  # while modules were still being imported
        print("tokenprune: interrupted", file=sys.stderr)
        sys.exit(130)
