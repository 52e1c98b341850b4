# SPDX-License-Identifier: Apache-2.0
"""``tokenprune run demo``: the shipped model's answer, its note, and the line that says what pruning saved."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.cli._runner import SHIPPED_NOTE, shipped_note
from tokenprune.cli.app import app

QUESTION = "Which way does the red circle move?"
SAVED = "288 -> 44 visual tokens (6.5x fewer), KV 4.3x smaller"


def run(*options: str, question: str = QUESTION) -> Any:
    outcome = CliRunner().invoke(app, ["run", "demo", question, "--device", "cpu", *options])
    assert outcome.exit_code == 0, outcome.output
    return outcome


def test_the_last_line_says_what_is_known() -> None:
    assert run().stdout.splitlines()[-1] == SAVED
    assert run("--preset", "baseline").stdout.splitlines()[-1] == "288 -> 288 visual tokens, KV about as large"


def test_compared_it_also_says_how_fast_and_whether_the_answer_is_the_same() -> None:
    lines = run("--compare").stdout.splitlines()
    prefill = r"prefill (\d+\.\dx faster|\d+\.\dx slower|about as fast)"
    assert re.fullmatch(f"{re.escape(SAVED)}, {prefill}, same answer", lines[-1])
    assert lines[0].split() == ["plain", "pruned", "ratio"]
    by_name = {line.split("  ")[0].strip(): line.split()[-1] for line in lines[1:-1]}
    assert by_name["KV cache after the prefill"] == "4.3x"


def test_the_same_figures_as_json() -> None:
    alone = json.loads(run("--json").stdout)
    assert alone["saving"] == {
        "visual_tokens_before": 288,
        "visual_tokens_after": 44,
        "visual_tokens_ratio": 288 / 44,
        "kv_ratio": alone["report"]["kv_bytes_unpruned"] / alone["report"]["kv_bytes"],
        "prefill_ratio": None,
        "same_answer": None,
    }
    both = json.loads(run("--json", "--compare").stdout)
    assert both["saving"]["prefill_ratio"] == both["plain"]["seconds"]["prefill"] / both["seconds"]["prefill"]
    assert both["saving"]["same_answer"] is both["same_answer"] is True


@pytest.mark.parametrize("name", [name for name in tp.presets() if name != "aggressive"])
def test_the_demo_is_answered_rightly_under_every_preset(name: str) -> None:
    assert json.loads(run("--json", "--preset", name).stdout)["answer"] == "left"


def test_aggressive_says_more_than_it_should_but_begins_rightly() -> None:
    assert json.loads(run("--json", "--preset", "aggressive").stdout)["answer"].startswith("left")


def test_a_question_in_words_it_does_not_know_gets_one_note_that_names_them() -> None:
    (line,) = run(question="Where is the dog of Ada?").stderr.splitlines()
    assert line == f"{SHIPPED_NOTE}, and not the words: dog, of, Ada"
    assert run().stderr.splitlines() == [SHIPPED_NOTE]


def test_of_many_unknown_words_the_first_are_named() -> None:
    assert shipped_note(tuple("abcdefghij")).endswith("not the words: a, b, c, d, e, f, g, h and 2 more")


def test_the_real_script_warns_of_nothing() -> None:
    code = "from tokenprune.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "demo", QUESTION, "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "left"
    assert done.stderr.splitlines() == [SHIPPED_NOTE]
