# SPDX-License-Identifier: Apache-2.0
"""``tokenprune run``: one question about one video, answered with pruning, or with and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._asking import Asking, Prepared

if TYPE_CHECKING:
    from tokenprune.answers import Answer


def run(
    asking: Asking,
    *,
    compare: Annotated[bool, typer.Option("--compare", help="Answer with the plain model as well.")] = False,
) -> Answered:
    """Answer a question about a video with its visual tokens pruned, and show what that saved."""
    with asking.prepared() as prepared:
        pruned, plain = prepared.compared() if compare else (prepared.pruned(), None)
    return Answered(_facts(asking, prepared), pruned, plain)


@dataclass(frozen=True)
class Answered:
    """The answer, what was asked of what, and the plain model's answer where it was wanted."""

    asked: Mapping[str, Any]
    pruned: Answer
    plain: Answer | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        from tokenprune.cli._answer import answer_to_dict
        from tokenprune.cli._saving import saving

        result = answer_to_dict(self.pruned)
        plain = None if self.plain is None else answer_to_dict(self.plain)
        same = None if self.plain is None else self.plain.token_ids == self.pruned.token_ids
        saved = saving(result, plain, same)
        compared = {} if plain is None else {"plain": plain, "same_answer": same}
        return {**self.asked, **result, **compared, "saving": None if saved is None else saved.to_dict()}

    def render(self) -> None:
        """Print the answer, the table and the line that says what was saved."""
        from rich.console import Console

        from tokenprune.cli._answer import answer_table
        from tokenprune.cli._saving import Saving

        data = self.to_dict()
        if self.plain is None:
            print(self.pruned.text)
        Console(highlight=False, markup=False).print(answer_table(data, data.get("plain")))
        if data["saving"] is not None:
            print(Saving(**data["saving"]).line())


def _facts(asking: Asking, prepared: Prepared) -> dict[str, Any]:
    from tokenprune.bench.runner import damage_of

    damage = damage_of(prepared.ready)
    return {
        "video": asking.video,
        "question": asking.question,
        "model": asking.model_name,
        "preset": prepared.name,
        "pipeline": prepared.pipeline.to_dict(),
        "frames": prepared.ready.frames,
        "sampled_fps": prepared.ready.sampled_fps,
        "damage": None if damage is None else dict(damage.to_dict()),
    }
