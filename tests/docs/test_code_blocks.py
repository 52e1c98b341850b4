# SPDX-License-Identifier: Apache-2.0
"""Every code block of README and docs runs, every command it shows exists, every hook is documented as it is."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for name, options, text in found if name == language and "notest" not in options]


def label(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def a_model_and_inputs() -> dict[str, Any]:
    """What a reader of a short block has at hand."""
    from tokenprune_qwen25vl.assets import demo_clip
    from tokenprune_qwen25vl.chat import Conversation, model_inputs
    from tokenprune_qwen25vl.loading import load
    from tokenprune_qwen25vl.video import load_clip

    model, processor = load(device="cpu")
    inputs = model_inputs(processor, [Conversation("Which way does the red circle move?", (load_clip(demo_clip()),))])
    return {"model": model, "processor": processor, "inputs": inputs}


# Those of README.md name a large model: test_readme.py runs them.
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if blocks(page, "python")], ids=label)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = blocks(page, "python")
    names: dict[str, Any] = {"__name__": "__docs__"}
    if page.name == "faq.md":
        names.update(a_model_and_inputs())
    for number, text in enumerate(source):
        exec(compile(text, f"{label(page)}[{number}]", "exec", dont_inherit=True), names)  # noqa: S102


def commands() -> list[tuple[str, str]]:
    return [
        (label(page), part.strip())
        for page in PAGES
        for text in blocks(page, "bash")
        for line in text.replace("\\\n", " ").splitlines()
        for part in line.split("&&")
        if part.strip().startswith("tokenprune ")
    ]


@pytest.mark.parametrize(("page", "command"), commands())
def test_shown_commands_exist(page: str, command: str) -> None:
    import typer.main

    from tokenprune.cli.app import app

    words = shlex.split(command)[1:]
    shown: Any = typer.main.get_command(app)
    while words and words[0] in getattr(shown, "commands", {}):
        shown = shown.commands[words.pop(0)]
    assert not getattr(shown, "commands", {}), f"{page} shows no such command: {command}"
    known = {option for parameter in shown.params for option in parameter.opts}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, f"{page}: {command}"


@pytest.mark.parametrize("module", ["tokenprune.hookspecs", "tokenprune.bench.hookspecs"])
def test_every_hook_is_documented(module: str) -> None:
    hookspecs = import_module(module)
    page = (ROOT / "docs/guides/hooks.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(hookspecs) if name.startswith("tokenprune_")]
    assert len(hooks) > 2
    for name in hooks:
        hook = getattr(hookspecs, name)
        arguments = hook.__code__.co_varnames[: hook.__code__.co_argcount]
        assert f"`{name}({', '.join(arguments)})`" in page, f"docs/guides/hooks.md does not show {name}{arguments}"


def test_every_hook_that_is_gone_has_its_line() -> None:
    from tokenprune.hookspecs import FORMER

    page = (ROOT / "docs/guides/hooks.md").read_text(encoding="utf-8")
    moving = page.partition("## Moving from 0.1")[2]
    assert [name for name in FORMER if f"`{name}(" not in moving] == []
