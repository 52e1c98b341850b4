# SPDX-License-Identifier: Apache-2.0
"""Asking EgoSchema's questions one by one, and counting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.bench.egoschema.files import EgoQuestion, find_video
from tokenprune.bench.multiple_choice import ask_for_letter, named_option
from tokenprune.errors import VideoError

if TYPE_CHECKING:
    from tokenprune.bench.results import Results
    from tokenprune.bench.runner import VideoModel
    from tokenprune.pipeline import Pipeline


@dataclass(frozen=True)
class Asker:
    """How every question is asked."""

    model: VideoModel
    pipeline: Pipeline
    videos: Path
    frames: int | None
    fps: float | None
    max_pixels: int | None
    max_new_tokens: int

    def ask(self, question: EgoQuestion) -> dict[str, Any]:
        """The prediction, the answer it was read from, and counts; or the error, where the video cannot be read."""
        from tokenprune.answers import ClipQuestion
        from tokenprune.bench.runner import damage_of

        asked = ask_for_letter(question.question, question.options)
        path = str(find_video(self.videos, question.uid))
        try:
            prepared = self.model.prepare(ClipQuestion(path, asked, None, self.frames, self.fps, self.max_pixels))
        except (VideoError, OSError) as error:
            return {"q_uid": question.uid, "prediction": -1, "error": " ".join(str(error).split())}
        answer = self.model.answer(prepared, self.pipeline, self.max_new_tokens)
        report = {} if answer.report is None else answer.report.to_dict()
        prediction = named_option(answer.text, question.options)
        damage = damage_of(prepared)
        return {
            "q_uid": question.uid,
            **({} if damage is None else {"damage": dict(damage.to_dict())}),
            "prediction": prediction,
            "parsed": prediction >= 0,
            "text": answer.text,
            "visual_tokens": report["visual_tokens"][0],
            "visual_retained": report["visual_retained"][0],
            "layer_averaged_retained": report["layer_averaged_retained"][0],
            "prefill_seconds": answer.prefill_seconds,
        }


def ask_all(
    results: Results, asker: Asker, questions: Sequence[EgoQuestion], progress: Callable[[int, int], None]
) -> None:
    """Ask what has no answer yet; what failed before is tried again."""
    results.entries[:] = [entry for entry in results.entries if "error" not in entry]
    done = {entry["q_uid"] for entry in results.entries}
    for place, question in enumerate(questions):
        progress(place, len(questions))
        if question.uid not in done:
            results.add(asker.ask(question))


def summary(entries: Sequence[Mapping[str, Any]], right: Mapping[str, int]) -> dict[str, Any]:
    """Counts; and accuracy over the entries with a known answer, those without a prediction counted as wrong."""
    from tokenprune.bench.benchmark import Share

    answered = [entry for entry in entries if "error" not in entry]
    known = [entry for entry in entries if entry["q_uid"] in right]
    hits = sum(entry["prediction"] == right[entry["q_uid"]] for entry in known)
    return {
        "questions": len(entries),
        "unreadable_videos": len(entries) - len(answered),
        "unparsed_answers": sum(not entry["parsed"] for entry in answered),
        "accuracy": Share(hits, len(known)).to_dict() if known else None,
        "visual_retained": _mean(answered, "visual_retained"),
        "layer_averaged_retained": _mean(answered, "layer_averaged_retained"),
    }


def _mean(entries: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return sum(entry[name] for entry in entries) / len(entries) if entries else None
