# SPDX-License-Identifier: Apache-2.0
"""``tokenprune bench`` as it is called, on an adapter that measures nothing: what it asks for, shows and refuses."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.bench import hookspecs, offers
from tokenprune.bench.speed.figures import Figure
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.bench.speed.result import OperatorCost, SpeedResult, SpeedRow, Speedup
from tokenprune.cli._measuring import find_speed
from tokenprune.cli.app import app
from tokenprune.loading import Plugin, PluginGroup, PluginInfo

Run = Callable[..., Any]


def figure(*values: float) -> Figure:
    return Figure(values)


def a_row(name: str, role: Any, prefill: Figure, first: Figure | None = None, **more: Any) -> SpeedRow:
    figures = {"llm_prefill_seconds": prefill}
    if first is not None:
        figures |= {
            "time_to_first_token_seconds": first,
            "answer_seconds": figure(2.0, 2.0, 2.0),
            "decode_tokens_per_second": figure(20.04, 20.0, 21.0),
        }
    row: dict[str, Any] = {
        "peak_memory_bytes": 3 * 2**29,
        "layer_tokens": [[2310, 2310], [2310, 2310]],
        "prefill_flops": 12_345_000_000_000,
        "kv_bytes": 264 * 2**20,
        "kv_bytes_by_formula": 264 * 2**20,
    }
    return SpeedRow(name=name, role=role, figures=figures, **row | more)


def rows_of(name: str, pipeline: tp.Pipeline) -> list[SpeedRow]:
    """A pipeline's row, its lower bound and its eager baseline, in an order that the table does not keep."""
    costs = [
        OperatorCost("STMerge", "before_llm", None, figure(0.003, 0.004, 0.005), [2304, 2304], [600, 700]),
        OperatorCost("AttnPrune", "after_layer", 10, figure(0.001, 0.001, 0.001), [600, 700], [240, 280]),
    ]
    mine = a_row(
        name,
        "pipeline",
        figure(0.12, 0.125, 0.2),
        figure(0.5, 0.55, 0.6),
        layer_tokens=[[606, 706], [246, 286]],
        prefill_flops=2_000_000_000,
        kv_bytes=2**20,
        kv_bytes_by_formula=2**19,
        operators=costs if pipeline.operators else (),
        ratios={
            "llm_prefill / lower bound": figure(1.25, 1.2, 1.3),
            "llm_prefill / plain": figure(0.25, 0.25, 0.26),
            "decode tokens/s / plain": figure(1.12, 1.1, 1.13),
            "peak_memory / plain": figure(0.75),
        },
        speedups={
            "time_to_first_token": Speedup(figure(1.8, 1.82, 1.85), ceiling=2.25),
            "answer": Speedup(figure(1.2, 1.21, 1.22), ceiling=1.33),
        },
        pipeline=pipeline.to_dict(),
    )
    lower = a_row(f"lower bound: {name}", "lower bound", figure(0.1, 0.1, 0.1), peak_memory_bytes=None, kv_bytes=None)
    eager = a_row(f"eager baseline: {name}", "eager baseline", figure(0.9, 0.9, 0.9))
    return [eager, lower, mine]


class FakeBench:
    """Remembers what it was asked, and answers with made-up figures."""

    shapes = ("tiny", "huge")

    def __init__(self) -> None:
        self.asked: list[SpeedRequest] = []
        self.error: BaseException | None = None
        self.plain = True

    def measure(self, request: SpeedRequest, progress: Any = None) -> SpeedResult:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        progress(1, 1)
        plain = a_row("plain", "plain", figure(0.5, 0.5, 0.5), figure(0.9, 1.0, 1.1))
        rows = [row for name, pipeline in request.pipelines.items() for row in rows_of(name, pipeline)]
        return SpeedResult(
            setting={"shape": request.shape, "grid": list(request.grid), "dtype": "bfloat16", "tokens": 2310},
            machine={"device": "cpu", "device_name": "Abacus 3000", "memory_bytes": 8 * 2**30, "cuda": None},
            vision={"seconds": figure(0.3, 0.4, 0.5), "peak_memory_bytes": figure(2.0**30)},
            rows=[plain, *rows] if self.plain else rows,
            unreachable={} if self.plain else {"plain": "out of memory: tried to allocate 9 TiB"},
        )


class FakeRunner:
    """Of the same plugin: takes the model called ``mine`` only."""

    def declines(self, model: str) -> str | None:
        return None if model == "mine" else f"does not know {model}"


def plugins_of(**modules: Mapping[str, Callable[[], Any]]) -> list[Plugin]:
    """Plugins of the group tokenprune.bench that have these hooks."""
    group = PluginGroup(hookspecs)
    loaded: list[Plugin] = []
    for name, hooks in modules.items():
        module = types.ModuleType(name)
        for hook, function in hooks.items():
            setattr(module, hook, tp.hookimpl(function))
        loaded.append(group.add(PluginInfo(name), lambda module=module: module))
    return loaded


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBench:
    measuring = FakeBench()

    def tokenprune_speed() -> FakeBench:
        return measuring

    def tokenprune_runner() -> FakeRunner:
        return FakeRunner()

    hooks = {"tokenprune_speed": tokenprune_speed, "tokenprune_runner": tokenprune_runner}
    monkeypatch.setattr(offers, "bench_plugins", lambda: plugins_of(fake=hooks))
    return measuring


@pytest.fixture
def run(fake: FakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def invoke(*options: str) -> Any:
        return CliRunner().invoke(app, ["bench", *options])

    return invoke


def failed(done: Any, code: int, said: str) -> None:
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert done.stderr.startswith("tokenprune: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def table_of(text: str, first: str) -> list[dict[str, str]]:
    """The Markdown table whose first row has this header, as one mapping a row; a name used twice: the later one's."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    start = next(place for place, cells in enumerate(lines) if first in cells)
    rows: list[dict[str, str]] = []
    for cells in lines[start + 2 :]:
        if len(cells) != len(lines[start]):
            break
        rows.append(dict(zip(lines[start], cells)))
    return rows


# What it asks for


def test_what_is_measured_by_default(run: Run, fake: FakeBench) -> None:
    done = run()
    assert done.exit_code == 0, done.output
    (asked,) = fake.asked
    assert asked == SpeedRequest({"default": tp.preset("default"), "baseline": tp.preset("baseline")})
    assert done.stderr.startswith("tokenprune: neither --shape nor --model given")
    assert len(done.stderr.splitlines()) == 1


def test_every_option_reaches_the_adapter(run: Run, fake: FakeBench) -> None:
    mine = Path("mine.json")
    tp.Pipeline([tp.UniformSelect(keep=4)]).save(mine)
    options = "--shape tiny --preset aggressive --pipeline mine.json --grid 8x4x6 --text 9 --batch 2 --new-tokens 3"
    more = "--static 0.25 --rounds 7 --warmup 0 --no-eager-baseline --profile traces"
    there = "--device cpu --dtype float32 --attn eager"
    done = run(*options.split(), *more.split(), *there.split())
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    pipelines = {"aggressive": tp.preset("aggressive"), "mine.json": tp.Pipeline.load(mine)}
    assert fake.asked == [
        SpeedRequest(
            pipelines,
            shape="tiny",
            model=None,
            grid=(8, 4, 6),
            text=9,
            batch=2,
            new_tokens=3,
            static=0.25,
            rounds=7,
            warmup=0,
            eager_baseline=False,
            profile=Path("traces"),
            device="cpu",
            dtype="float32",
            attn="eager",
        )
    ]


def test_the_old_name_of_an_option(run: Run, fake: FakeBench) -> None:
    assert run("--no-usual").exit_code == 0
    assert not fake.asked[0].eager_baseline
    assert "--no-usual" not in run("--help").stdout


def test_a_file_alone_replaces_the_default_pipelines(run: Run, fake: FakeBench) -> None:
    tp.Pipeline().save("mine.json")
    assert run("--pipeline", "mine.json").exit_code == 0
    assert list(fake.asked[0].pipelines) == ["mine.json"]


# What it shows


def test_the_table_of_rows(run: Run) -> None:
    done = run("--preset", "default", "--preset", "baseline", "--shape", "huge")
    assert done.exit_code == 0, done.output
    rows = table_of(done.stdout, "LLM prefill")
    names = ["plain", *names_of("default"), *names_of("baseline")]
    assert [row[""] for row in rows] == names
    plain, mine, lower, eager = rows[:4]
    assert mine["tokens"] == "1312 to 532"
    assert mine["LLM prefill"] == "125 ms [120, 200]"
    assert mine["/ lower bound"] == "1.25"
    assert mine["first token"] == "550 ms [500, 600]"
    assert mine["speed-up (ceiling)"] == "1.82 x (2.25 x)"
    assert mine["decode tokens/s"] == "20.0"
    assert mine["answer speed-up (ceiling)"] == "1.21 x (1.33 x)"
    assert mine["peak memory"] == "1.5 GiB"
    assert mine["KV cache"] == "1.0 MiB (formula: 512 KiB!)"
    assert mine["prefill FLOP"] == "2.0 GFLOP"
    assert plain["KV cache"] == "264 MiB"
    assert plain["prefill FLOP"] == "12.3 TFLOP"
    assert lower["KV cache"] == "264 MiB (formula)"
    assert (lower["first token"], lower["peak memory"], eager["speed-up (ceiling)"]) == ("", "", "")
    assert [cell.strip() for cell in line_of(done.stdout, "| default ").split("|")][4:6] == ["1.25", "0.25"]
    assert "…" not in done.stdout


def test_the_table_of_operators(run: Run) -> None:
    done = run("--preset", "default", "--preset", "baseline")
    assert table_of(done.stdout, "operator") == [
        {
            "pipeline": "default",
            "operator": "STMerge",
            "where": "before the LLM",
            "visual tokens": "4608 to 1300",
            "time": "4 ms [3, 5]",
            "of the plain LLM prefill": "0.80%",
        },
        {
            "pipeline": "default",
            "operator": "AttnPrune",
            "where": "after layer 10",
            "visual tokens": "1300 to 520",
            "time": "1 ms [1, 1]",
            "of the plain LLM prefill": "0.20%",
        },
    ]
    assert "operator |" not in run("--preset", "baseline").stdout


def test_machine_setting_vision_and_legend(run: Run) -> None:
    said = run("--shape", "tiny").stdout
    assert "device cpu, device name Abacus 3000, memory 8.0 GiB\n" in said
    assert "shape tiny, grid 16x12x12, dtype bfloat16, tokens 2,310\n" in said
    assert "vision encoder: 400 ms [300, 500], peak memory 1.0 GiB\n" in said
    assert "Ceiling: the speed-up of an LLM prefill that takes no time" in said
    assert "unreachable" not in said


@pytest.mark.parametrize("kind", ["json", "table", "plot"])
def test_a_plain_model_that_did_not_fit(run: Run, fake: FakeBench, kind: str) -> None:
    if kind == "plot":
        pytest.importorskip("matplotlib")
    fake.plain = False
    done = run(*{"json": ["--json"], "table": [], "plot": ["--plot", "bars.svg"]}[kind])
    assert done.exit_code == 0, done.output
    if kind == "json":
        assert "out of memory" in json.loads(done.stdout)["unreachable"]["plain"]
    else:
        assert "unreachable: plain: out of memory: tried to allocate 9 TiB\n" in done.stdout
        assert {row["of the plain LLM prefill"] for row in table_of(done.stdout, "operator")} == {""}


def test_json_and_the_file(run: Run, fake: FakeBench) -> None:
    done = run("--shape", "tiny", "--preset", "default", "--out", "bench.json", "--json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert json.loads(Path("bench.json").read_text()) == data
    assert data["model"] == "tiny"
    assert data["command"].startswith("tokenprune")
    assert (data["format"], data["version"]) == ("tokenprune.speed", 2)
    assert set(data) == {
        *("model", "command", "format", "version", "setting", "machine", "vision", "rows", "unreachable")
    }
    assert data["vision"]["seconds"] == {"median": 0.4, "min": 0.3, "max": 0.5, "runs": [0.3, 0.4, 0.5]}
    mine = next(row for row in data["rows"] if row["name"] == "default")
    assert mine["speedups"]["answer"]["ceiling"] == 1.33
    assert mine["operators"][1]["layer"] == 10
    assert tp.Pipeline.from_dict(mine["pipeline"]) == fake.asked[0].pipelines["default"]
    assert [path.name for path in Path().iterdir()] == ["bench.json"]


@pytest.mark.parametrize(("options", "model"), [((), "shipped"), (("--model", "mine"), "mine")])
def test_json_says_which_model_it_was(run: Run, options: tuple[str, ...], model: str) -> None:
    done = run("--json", *options)
    assert json.loads(done.stdout)["model"] == model
    assert ("ships with tokenprune" in done.stderr) == (model == "shipped")


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_plot(run: Run, suffix: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    pictures: list[bytes] = []
    for name in ("a", "b"):
        plot = Path(f"{name}.{suffix}")
        assert run("--plot", str(plot)).exit_code == 0
        pictures.append(plot.read_bytes())
    assert pictures[0].startswith(begins)
    assert pictures[0] == pictures[1]
    assert sorted(path.name for path in Path().iterdir()) == [f"a.{suffix}", f"b.{suffix}"]


def test_what_the_bars_are_made_of() -> None:
    from tokenprune.cli._bench_plot import parts_of

    eager, lower, mine = rows_of("default", tp.preset("default"))
    parts = list(parts_of(mine, 0.4).values())
    assert parts == pytest.approx([0.4, 0.005, 0.12, 0.025])  # 0.55 s in all
    assert list(parts_of(lower, 0.4).values()) == pytest.approx([0.4, 0, 0.1, 0])
    assert list(parts_of(eager, 0.4).values()) == pytest.approx([0.4, 0, 0.9, 0])


def test_the_shipped_model_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("transformers", "torchvision", "matplotlib"):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    small = "--grid 4x4x4 --text 32 --rounds 2 --warmup 0 --new-tokens 2 --device cpu --out a.json --plot a.png"
    done = CliRunner().invoke(app, ["bench", *small.split(), "--profile", "traces"])
    assert done.exit_code == 0, done.output
    names = ["plain", "default", "lower bound: default", "eager baseline: default", "baseline"]
    assert [row[""] for row in table_of(done.stdout, "LLM prefill")] == names
    costs = [(row["operator"], row["where"]) for row in table_of(done.stdout, "operator")]
    assert costs == [("STMerge", "before the LLM"), ("AttnPrune", "after layer 2")]
    data = json.loads(Path("a.json").read_text())
    plain, mine, lower = data["rows"][:3]
    assert plain["layer_tokens"] == 8 * [[data["setting"]["prompt_tokens"]]]
    assert lower["layer_tokens"] == mine["layer_tokens"] != plain["layer_tokens"]
    assert mine["kv_bytes"] == mine["kv_bytes_by_formula"] < plain["kv_bytes"]
    assert mine["prefill_flops"] < plain["prefill_flops"]
    assert set(mine["speedups"]) == {"time_to_first_token", "answer"}
    assert "llm_prefill / lower bound" in mine["ratios"]
    assert len(plain["figures"]["llm_prefill_seconds"]["runs"]) == 2
    assert data["unreachable"] == {}
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(Path("traces").iterdir())) == len(names) + 1  # the vision encoder has one too


# What it refuses


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--preset", "bold"), "preset must be one of"),
        (("--shape", "vast"), "shape must be one of tiny, huge"),
        (("--shape", "tiny", "--model", "mine"), "not both"),
        (("--grid", "16x12"), "--grid must be"),
        (("--grid", "16x12x-1"), "--grid must be"),
        (("--grid", "axbxc"), "--grid must be"),
        (("--grid", "0x12x12"), "grid must be"),
        (("--text", "0"), "text must be at least 1"),
        (("--batch", "0"), "batch must be at least 1"),
        (("--new-tokens", "0"), "new_tokens must be at least 1"),
        (("--rounds", "0"), "rounds must be at least 1"),
        (("--warmup", "-1"), "warmup must be at least 0"),
        (("--shape", "tiny", "--static", "1.5"), "static must be a fraction"),
        (("--shape", "tiny", "--static", "nan"), "static must be a fraction"),
        (("--static", "0.5"), "--static is for --shape"),
        (("--plot", "a.txt"), ".png"),
        (("--plot", "no/such/a.png"), "--plot"),
        (("--out", "no/such/directory/a.json"), "--out"),
        (("--out", "."), "--out"),
        (("--profile", "no/such/directory"), "--profile"),
        (("--profile", "a-file"), "--profile"),
        (("--pipeline", "plain"), "--pipeline must not be named like another row"),
        (("--preset", "default", "--pipeline", "default"), "--pipeline must not be named like another row"),
    ],
)
def test_wrong_usage(run: Run, fake: FakeBench, options: tuple[str, ...], said: str) -> None:
    Path("a-file").touch()
    failed(run(*options), 2, said)
    assert not fake.asked


def test_a_plot_without_matplotlib(run: Run, fake: FakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune.cli._outputs.find_spec", lambda name: None)
    failed(run("--plot", "a.png"), 2, 'pip install "tokenprune-vlm[plot]"')
    assert not fake.asked


def test_wrong_usage_as_json(run: Run) -> None:
    for options in (("--preset", "bold"), ("--static", "2"), ("--grid", "3"), ("--shape", "vast")):
        done = run(*options, "--json")
        assert done.exit_code == 2
        assert json.loads(done.stdout)["error"]["type"] == "UsageError"


def test_an_option_that_is_no_number(run: Run) -> None:
    assert run("--text", "many").exit_code == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_failed_jobs(run: Run, fake: FakeBench, as_json: bool) -> None:
    fake.error = tp.InvalidValueError("the grid is too\nlarge")
    done = run("--shape", "tiny", "--out", "a.json", *(["--json"] if as_json else []))
    if as_json:
        assert json.loads(done.stdout)["error"] == {"type": "InvalidValueError", "message": "the grid is too\nlarge"}
        assert done.exit_code == 1
    else:
        failed(done, 1, "the grid is too large")
    assert not Path("a.json").exists()


def test_a_missing_pipeline_file(run: Run, fake: FakeBench) -> None:
    failed(run("--pipeline", "missing.json"), 1, "missing.json")
    assert not fake.asked


def test_an_interruption(run: Run, fake: FakeBench) -> None:
    fake.error = KeyboardInterrupt()
    failed(run("--shape", "tiny"), 130, "interrupted")


def test_a_model_that_the_adapter_does_not_know(run: Run, fake: FakeBench) -> None:
    failed(run("--model", "theirs"), 1, "no adapter measures theirs: fake does not know theirs")
    assert not fake.asked


# Which adapter


def test_the_first_adapter_that_can() -> None:
    one, other = FakeBench(), FakeBench()
    other.shapes = ("small",)

    def tokenprune_speed() -> FakeBench:
        return one

    def tokenprune_runner() -> FakeRunner:
        return FakeRunner()

    one_hooks = {"tokenprune_speed": tokenprune_speed, "tokenprune_runner": tokenprune_runner}

    def offer_other() -> FakeBench:
        return other

    found = plugins_of(a=one_hooks, b={"tokenprune_speed": offer_other})
    assert find_speed(None, None, found) is one
    assert find_speed(None, "mine", found) is one
    assert find_speed(None, "theirs", found) is other  # it has no runner that could decline
    assert find_speed("huge", None, found) is one
    assert find_speed("small", None, found) is other
    with pytest.raises(tp.InvalidValueError, match="one of tiny, huge, small, got 'vast'"):
        find_speed("vast", None, found)


def test_no_adapter_measures() -> None:
    def tokenprune_requirements() -> str:
        return "install more"

    with pytest.raises(tp.NoAdapterError, match="no adapter measures speed: none is installed"):
        find_speed(None, None, plugins_of())
    found = plugins_of(broken={"tokenprune_requirements": tokenprune_requirements})
    with pytest.raises(tp.NoAdapterError, match=r"measures huge: broken \(not installed\): install more"):
        find_speed("huge", None, found)


def names_of(pipeline: str) -> list[str]:
    return [pipeline, f"lower bound: {pipeline}", f"eager baseline: {pipeline}"]


def line_of(text: str, begins: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(begins))
