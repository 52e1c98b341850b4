# SPDX-License-Identifier: Apache-2.0
"""Some virtual machines advertise AMX, permit it, and die of its first instruction; only running it tells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path

VARIABLE = "ONEDNN_MAX_CPU_ISA"
WITHOUT_AMX = "AVX512_CORE_BF16"
PRODUCT = "import torch; a = torch.ones(64, 64, dtype=torch.bfloat16); a @ a"


def avoid_broken_amx(
    environment: MutableMapping[str, str],
    cpuinfo: Path = Path("/proc/cpuinfo"),
    probe: Sequence[str] = (sys.executable, "-c", PRODUCT),
) -> bool:
    """Tell oneDNN to leave AMX alone if a bfloat16 product kills a process of its own; before torch is imported.

    What is set is inherited by workers and subprocesses.

    Returns:
        Whether the variable had to be set.
    """
    if VARIABLE in environment or not cpuinfo.is_file() or "amx_tile" not in cpuinfo.read_text():
        return False
    ended = subprocess.run(probe, env=dict(environment), capture_output=True, check=False)
    if ended.returncode >= 0:  # negative: by a signal
        return False
    environment[VARIABLE] = WITHOUT_AMX
    return True
