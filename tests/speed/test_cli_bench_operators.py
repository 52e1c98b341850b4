# SPDX-License-Identifier: Apache-2.0
"""``tokenprune bench-operators`` on clips of a few tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tokenprune.cli.app import app

CLIPS = ["--frames", "2", "--frames", "5", "--rows", "2", "--columns", "3", "--width", "16"]
TINY = [*CLIPS, "--rounds", "1", "--warmup", "0", "--device", "cpu"]


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["bench-operators", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_tables() -> None:
    code, out, _ = invoke(*TINY)
    assert code == 0
    lines = out.splitlines()
    assert [line.split("|")[2:4] for line in lines if line.startswith("| milliseconds")] == [
        [" 2 frames ", " 5 frames "]
    ]
    assert sum(line.startswith("| STMerge: plan and apply") for line in lines) == 3
    assert sum(line.startswith("| % of the plain prefill, 28 such layers (median)") for line in lines) == 1
    assert any(line.startswith("5 frames: STMerge: plan and apply / direct implementation: ") for line in lines)
    assert any(line.startswith("STMerge, time a frame at 5 frames over that at 2: ") for line in lines)
    assert lines[-2].startswith("Counted on a CPU: ")
    assert lines[-1].startswith("2 x 3 tokens a frame, 16 wide, float32, 50% static; 1 rounds; ")


def test_the_result_for_programs_and_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "result.json"
    monkeypatch.setattr("sys.argv", ["/somewhere/tokenprune", "bench-operators", "--json"])
    code, out, _ = invoke(*TINY, "--no-direct", "--dtype", "bfloat16", "--json", "--out", str(file))
    assert code == 0
    data = json.loads(out)
    assert data == json.loads(file.read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert data["format"] == "tokenprune.speed.operators"
    assert data["setting"]["dtype"] == "bfloat16"
    assert data["command"] == "tokenprune bench-operators --json"
    assert [case["grid"] for case in data["cases"]] == [[2, 2, 3], [5, 2, 3]]
    assert all(case["ratios"] == {} and case["same_tokens"] is None for case in data["cases"])


def test_the_direct_implementation_up_to_a_size() -> None:
    code, out, _ = invoke(*TINY, "--direct-up-to", "2", "--json")
    assert code == 0
    assert [bool(case["ratios"]) for case in json.loads(out)["cases"]] == [True, False]


def test_what_takes_too_long_is_named() -> None:
    code, out, _ = invoke(*TINY, "--limit-seconds", "1e-9", "--layers", "0")
    assert code == 0
    assert "2 frames: STMerge: plan: left out, its first run took 0 s" in out.splitlines()
    assert "% of the plain prefill" not in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--frames", "0"], "frames"),
        (["--frames", "3", "--frames", "3"], "frames"),
        (["--rows", "0"], "rows"),
        (["--width", "0"], "width"),
        (["--static", "2"], "static"),
        (["--rounds", "0"], "rounds"),
        (["--warmup", "-1"], "warmup"),
        (["--layers", "-1"], "layers"),
        (["--clock", "sand"], "clock"),
        (["--limit-seconds", "0"], "limit"),
        (["--device", "toaster"], "--device"),
        (["--device", "cuda:99"], "--device"),
        (["--device", "meta"], "device"),
        (["--dtype", "int8"], "--dtype"),
        (["--no-direct", "--direct-up-to", "4"], "--no-direct"),
        (["--out", "no/such/directory/file.json"], "--out"),
    ],
)
def test_bad_usage_is_one_line_before_anything_is_made(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenprune.bench.speed import operators

    def measured(*_: object) -> None:
        raise AssertionError("nothing may be measured")

    monkeypatch.setattr(operators, "measure_operators", measured)
    code, out, err = invoke(*arguments)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("tokenprune: ")
    assert named in err


def test_a_usage_error_as_json() -> None:
    code, out, _ = invoke("--dtype", "int8", "--json")
    assert code == 2
    assert json.loads(out)["error"]["type"] == "UsageError"
