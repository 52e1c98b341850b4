# SPDX-License-Identifier: Apache-2.0
"""What all commands have in common: options of the machine, and errors on one line, as JSON too, before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from typing import Any

import pytest
from typer.testing import CliRunner

from tokenprune.cli import _output
from tokenprune.cli.app import app
from tokenprune.errors import TokenPruneWarning

COMMANDS = {
    "run": ["run", "demo", "What?"],
    "show": ["show", "demo", "What?"],
    "sweep": ["sweep", "demo", "What?"],
    "eval world": ["eval", "world"],
    "eval egoschema": ["eval", "egoschema", "--videos", ".", "--questions", "q.json"],
    "bench": ["bench"],
    "bench-operators": ["bench-operators"],
}
over_commands = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
BAD = [
    (("--dtype", "int8"), "--dtype must be one of auto, float32"),
    (("--dtype", "bf61"), "did you mean 'bf16'?"),
    (("--dtype", ""), "--dtype must be one of"),
    (("--dtype", "x" * 10**5), "--dtype must be one of"),
    (("--device", "gpu"), "--device must be cpu"),
    (("--device", "cuda:-1"), "--device must be cpu"),
    (("--device", "cuda:٣"), "--device must be cpu"),
    (("--device", ""), "--device must be cpu"),
]
PIXELS = [(("--max-pixels", "0"), "--max-pixels must be at least 1"), (("--max-pixels", "-5"), "got -5")]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def refused(done: Any, said: str) -> None:
    assert done.exit_code == 2, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("tokenprune: ")
    assert said in lines[0]
    assert len(lines[0]) < 400


@over_commands
@pytest.mark.parametrize(("options", "said"), BAD, ids=lambda value: str(value)[:30])
def test_bad_options_of_the_machine(command: list[str], options: tuple[str, ...], said: str) -> None:
    done = invoke(*command, *options)
    refused(done, said)
    assert done.stdout == ""
    done = invoke(*command, *options, "--json")
    refused(done, said)
    assert said in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize("command", ["run", "show", "sweep", "eval egoschema"])
@pytest.mark.parametrize(("options", "said"), PIXELS)
def test_bad_pixels(command: str, options: tuple[str, ...], said: str) -> None:
    refused(invoke(*COMMANDS[command], *options), said)


def test_they_are_refused_before_anything_heavy_is_imported() -> None:
    calls = [[*command, *options] for command in COMMANDS.values() for options, _ in BAD[:6:4]]
    calls += [[*COMMANDS["run"], *options] for options, _ in PIXELS]
    script = f"""
import sys
from tokenprune.cli.app import app
for call in {calls!r}:
    try:
        app(call)
    except SystemExit as left:
        assert left.code == 2, call
    assert not {{"torch", "numpy", "transformers", "rich.table"}} & set(sys.modules), call
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("short", "long"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_short_names_of_dtypes(short: str, long: str) -> None:
    small = ["--frames", "2", "--rows", "2", "--columns", "2", "--width", "4", "--rounds", "1", "--device", "cpu"]
    done = invoke("bench-operators", *small, "--dtype", short, "--json")
    assert done.exit_code == 0, done.stderr
    assert long in done.stdout


def test_short_names_reach_the_model_by_their_full_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from tokenprune_qwen25vl.runner import QwenRunner

    asked: list[Any] = []

    def load(self: Any, *arguments: Any) -> Any:
        asked.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(QwenRunner, "load", load)
    done = invoke("run", "demo", "What?", "--dtype", "bf16", "--device", "cpu", "--json")
    assert asked == [(None, "cpu", "bfloat16", None)]
    assert done.exit_code == 130
    assert json.loads(done.stdout) == {"error": {"type": "KeyboardInterrupt", "message": "interrupted"}}
    assert done.stderr.splitlines()[-1] == "tokenprune: interrupted"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "demo", "What?", "--frames", "0"], "--frames"),
        (["run", "demo", "What?", "--frames", "many"], "--frames"),
        (["run", "demo"], "question"),
        (["plugins", "--nope"], "--nope"),
        (["plugins", "more"], "more"),
        (["nope"], "nope"),
        (["eval", "moon"], "moon"),
    ],
)
def test_wrong_usage_that_typer_finds(arguments: list[str], said: str) -> None:
    done = invoke(*arguments)
    refused(done, said)
    assert done.stdout == ""
    done = invoke(*arguments, "--json")
    refused(done, said)
    assert said in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "demo", "What?", "-o", "out"],
        ["sweep", "demo", "What?", "--out", "out.json"],
        ["eval", "world", "--out", "out.json"],
        ["eval", "egoschema", "--videos", ".", "--questions", "q.json", "--out", "out.json"],
        ["bench", "--plot", "out.png"],
    ],
    ids=lambda arguments: arguments[0] if arguments[0] != "eval" else arguments[1],
)
def test_what_cannot_be_written_is_refused_before_the_work(
    arguments: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda place, mode, **more: mode != os.W_OK)  # root may write anywhere
    refused(invoke(*arguments), "that can be written to")
    assert not list(tmp_path.iterdir())


def test_a_warning_of_ours_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        with _output.Output().guarded():
            warnings.warn("of\nours", TokenPruneWarning, stacklevel=1)
            warnings.warn("of another's", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="of another's") as caught:
        body()
    assert capsys.readouterr().err == "tokenprune: of ours\n"
    assert len(caught) == 1
    with pytest.warns(TokenPruneWarning):  # outside of a command nothing has changed
        warnings.warn("of ours", TokenPruneWarning, stacklevel=1)


def test_an_interrupt_outside_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_output.Output, "guarded", interrupted)
    assert invoke("run", "demo", "What?").exit_code == 130


def test_json_on_a_stdout_that_holds_no_such_character(capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("größer", "\udcff"):  # the second: a byte of a file name that is no UTF-8
        _output.print_json({"name": value})
        assert json.loads(capsys.readouterr().out) == {"name": value}
    script = "from tokenprune.cli._output import print_json; print_json({'name': 'größer'})"
    for encoding in ("ascii", "utf-8"):
        command = [sys.executable, "-X", "utf8=0", "-c", script]
        run = subprocess.run(command, env={"PYTHONIOENCODING": encoding}, capture_output=True, check=True)
        assert json.loads(run.stdout.decode()) == {"name": "größer"}


def test_guesses_at_names(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-checkpoint").mkdir()
    for arguments, name in (
        (["run", "demo", "What?", "--preset", "agressive"], "aggressive"),
        (["bench", "--preset", "defualt"], "default"),
        (["bench", "--shape", "qwen25-vl-7b"], "qwen2.5-vl-7b"),
        (["run", "demo", "What?", "--model", "my-chekpoint"], "my-checkpoint"),
        (["run", "dmeo", "What?"], "demo"),
    ):
        done = invoke(*arguments)
        assert done.exit_code in (1, 2)
        assert f"did you mean {name!r}?" in done.stderr.splitlines()[-1]
