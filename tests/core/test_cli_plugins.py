# SPDX-License-Identifier: Apache-2.0
"""``tokenprune plugins``, and what every command shares: exit codes, one-line errors, the refusal beside a stranger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tokenprune import plugins
from tokenprune.bench import offers
from tokenprune.cli import _command
from tokenprune.cli.app import app
from tokenprune.distribution import foreign_distribution, installed_version
from tokenprune.errors import InvalidValueError
from tokenprune.loading import Plugin, PluginInfo
from tokenprune.plugins import PluginRegistry

LISTED = (
    PluginInfo("builtin", "tokenprune-vlm", "0.1.0", ("tokenprune_operators",)),
    PluginInfo("bad", "bad-dist", "2", (), "failed", "ImportError: nothing there"),
    PluginInfo("later", "later-dist", "3", ("tokenprune_model_adapters",), "not installed", "pip install gold"),
    PluginInfo("table", "t", "1", models=(("one", ""), ("two", ""), ("Three", "it slides"))),
    PluginInfo("ghost", status="failed", reason="no such entry point"),
)


@pytest.fixture(autouse=True)
def _listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_default", PluginRegistry(tuple(map(Plugin, LISTED))))
    monkeypatch.setattr(offers, "bench_plugins", lambda: [Plugin(PluginInfo("mine", hooks=("tokenprune_speed",)))])


def test_the_list_for_people() -> None:
    result = CliRunner().invoke(app, ["plugins"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "builtin  ok  (tokenprune-vlm 0.1.0)",
        "    tokenprune_operators",
        "bad  failed  (bad-dist 2)",
        "    ImportError: nothing there",
        "later  not installed  (later-dist 3)",
        "    tokenprune_model_adapters",
        "    pip install gold",
        "table  ok  (t 1)",
        "    models: one, two",
        "    Three: it slides",
        "ghost  failed",
        "    no such entry point",
        "",
        "run and measure models (tokenprune.bench):",
        "mine  ok",
        "    tokenprune_speed",
    ]


def test_the_list_for_programs() -> None:
    result = CliRunner().invoke(app, ["plugins", "--json"])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert [plugin["name"] for plugin in printed["bench"]] == ["mine"]
    listed = printed["plugins"]
    assert listed[2] == {
        "name": "later",
        "distribution": "later-dist",
        "version": "3",
        "hooks": ["tokenprune_model_adapters"],
        "status": "not installed",
        "reason": "pip install gold",
        "models": [],
    }
    assert listed[3]["models"] == [["one", ""], ["two", ""], ["Three", "it slides"]]
    assert [plugin["name"] for plugin in listed] == ["builtin", "bad", "later", "table", "ghost"]


def test_the_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout.strip()) == (0, f"tokenprune-vlm {installed_version()}")


@pytest.mark.parametrize("arguments", [[], ["nope"], ["plugins", "--nope"], ["plugins", "extra"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


@dataclass(frozen=True)
class Nothing:
    """What a command that finds out nothing returns."""

    def to_dict(self) -> dict[str, str]:
        return {}

    def render(self) -> None:
        pass


def command(body: Callable[[], None]) -> typer.Typer:
    def only() -> Nothing:
        body()
        return Nothing()

    application = typer.Typer(pretty_exceptions_enable=False)
    application.command()(_command.command(only))
    return application


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InvalidValueError("tau must be\n  a number"), 1, "tokenprune: tau must be a number"),
        (FileNotFoundError(2, "No such file", "x.mp4"), 1, "tokenprune: [Errno 2] No such file: 'x.mp4'"),
        (RuntimeError("out of memory"), 1, "tokenprune: RuntimeError: out of memory"),
        (ValueError(), 1, "tokenprune: ValueError"),
        (KeyboardInterrupt(), 130, "tokenprune: interrupted"),
    ],
)
def test_an_error_is_one_line(error: BaseException, code: int, line: str) -> None:
    result = CliRunner().invoke(command(raising(error)), [])
    assert result.exit_code == code
    assert result.stderr.splitlines() == [line]
    assert result.stdout == ""


def test_an_error_for_programs() -> None:
    result = CliRunner().invoke(command(raising(InvalidValueError("no"))), ["--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"error": {"type": "InvalidValueError", "message": "no"}}
    assert result.stderr.splitlines() == ["tokenprune: no"]


def test_the_traceback_for_the_curious() -> None:
    result = CliRunner().invoke(command(raising(InvalidValueError("no"))), ["--debug"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == "tokenprune: no"


def test_wrong_usage_found_in_the_body_is_2() -> None:
    result = CliRunner().invoke(command(raising(typer.BadParameter("give one of the two"))), [])
    assert result.exit_code == 2
    assert "give one of the two" in result.stderr


def test_a_command_may_leave_with_its_own_code() -> None:
    assert CliRunner().invoke(command(raising(typer.Exit(5))), []).exit_code == 5


def run_main(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    script = "import sys; from tokenprune.cli import main; sys.argv[1:] = " + repr(list(arguments)) + "; main()"
    environment = {**os.environ, "TOKENPRUNE_PLUGINS": ""}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)


def test_the_command_line_refuses_to_start_beside_a_stranger_of_our_name(tmp_path: Path) -> None:
    info = tmp_path / "tokenprune-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tokenprune\nVersion: 9.9\n")
    for arguments in (["plugins"], ["--version"]):
        result = run_main(*arguments, path=tmp_path)
        assert result.returncode == 1
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("tokenprune: the unrelated distribution tokenprune 9.9 is installed")


def test_alone_it_starts() -> None:
    assert foreign_distribution() is None
    result = run_main("plugins", "--json")
    assert result.returncode == 0, result.stderr
    assert [plugin["name"] for plugin in json.loads(result.stdout)["plugins"]] == ["builtin"]


def test_a_reader_that_leaves_is_no_traceback() -> None:
    script = "import sys; from tokenprune.cli import main; sys.argv[1:] = ['plugins', '--json']; main()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TOKENPRUNE_PLUGINS": ""},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        message = process.stderr.read()
    assert process.returncode == 1
    assert message == ""
