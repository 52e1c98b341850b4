# SPDX-License-Identifier: Apache-2.0
"""The names of the presets, where a reader or a shell asks for them: at once, without importing torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.cli._preset_names import PRESETS
from tokenprune.cli.app import app

SCRIPT = """
import sys
from tokenprune.cli import main
sys.argv[:] = ["tokenprune", *sys.argv[1:]]
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TERM": "dumb", **environment},
    )


def complete(shell: str, words: str) -> str:
    asked = {"_TOKENPRUNE_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        asked |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    else:
        asked |= {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = script(**asked)
    assert done.stderr == ""
    return done.stdout


def test_they_are_the_presets() -> None:
    assert tp.presets() == PRESETS


@pytest.mark.parametrize(
    "command", [["run"], ["show"], ["bench"], ["eval", "world"], ["eval", "egoschema"]], ids=" ".join
)
def test_help_lists_them(command: list[str]) -> None:
    outcome = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert outcome.exit_code == 0
    assert ", ".join(PRESETS) in " ".join(outcome.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_completes_them(shell: str) -> None:
    assert complete(shell, "tokenprune run demo what --preset ").splitlines() == list(PRESETS)
    assert complete(shell, "tokenprune eval world --preset stage").splitlines() == ["stage1_only", "stage2_only"]
    assert complete(shell, "tokenprune run demo what --preset x").split() == []


def test_zsh_completes_them() -> None:
    listed = complete("zsh", "tokenprune run demo what --preset con")
    assert '"conservative"' in listed
    assert '"default"' not in listed


def test_commands_are_completed() -> None:
    assert "sweep" in complete("bash", "tokenprune sw")


def test_a_shell_is_told_how() -> None:
    done = script("--show-completion", "bash")
    shown = script(_TOKENPRUNE_COMPLETE="source_bash")
    assert "complete_bash" in done.stdout + shown.stdout
    options = CliRunner().invoke(app, ["--help"]).stdout
    assert "--install-completion" in options
    assert "--show-completion" in options
