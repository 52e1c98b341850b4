# SPDX-License-Identifier: Apache-2.0
"""Every pipeline asked what the plain model is asked, about each part of each video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.errors import VideoError

if TYPE_CHECKING:
    from torch import Tensor

    from tokenprune.answers import ClipQuestion
    from tokenprune.bench.benchmark import Journal
    from tokenprune.bench.runner import PreparedQuestion, VideoModel
    from tokenprune.pipeline import Pipeline

VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")

GENERAL = (
    "What is happening in this video?",
    "What objects can be seen?",
    "What colour is the largest object?",
    "What moves, and which way?",
    "What changes between the beginning and the end?",
    "How many people or animals are there?",
)
"""Asked where no question is given."""

OF_THE_WORLD = (
    "What shape is the red object?",
    "What colour is the object that moves?",
    "Which way does the red object move?",
    "How many flashes are there?",
    "Where is the green flash?",
    "What letter is on the sign?",
)
"""The same for the small shipped model, in words that it knows."""


@dataclass(frozen=True)
class Agreement:
    """How every video is asked about.

    Args:
        model: loaded.
        pipelines: name -> pipeline.
        sampling: of a video's question: how it is read; the video and the question themselves do not count.
        questions: asked about each part.
        windows: parts of a video, one after the other, each with its share of the frames.
        max_new_tokens: length of an answer, at most.
    """

    model: VideoModel
    pipelines: Mapping[str, Pipeline]
    sampling: ClipQuestion
    questions: Sequence[str]
    windows: int
    max_new_tokens: int

    def ask(self, video: Path) -> Iterator[dict[str, Any]]:
        """For each part of a video what came of it, JSON-ready; or the one error, where it cannot be read."""
        from dataclasses import replace

        try:
            parts = self.model.windows(replace(self.sampling, video=str(video)), self.questions, self.windows)
            for place, part in enumerate(parts):
                yield {"video": video.name, "window": place, "rows": self._ask_part(part)}
        except (VideoError, OSError) as error:
            yield {"video": video.name, "window": 0, "error": " ".join(str(error).split())}

    def _ask_part(self, part: Sequence[PreparedQuestion]) -> dict[str, Any]:
        plain = [self.model.watched(each, None, self.max_new_tokens) for each in part]
        rows: dict[str, dict[str, list[Any]]] = {name: {"equal": [], "kl": [], "budget": []} for name in self.pipelines}
        for name, pipeline in self.pipelines.items():
            for prepared, (expected, expected_logs) in zip(part, plain):
                answer, logs = self.model.watched(prepared, pipeline, self.max_new_tokens)
                report = {} if answer.report is None else answer.report.to_dict()
                rows[name]["equal"].append(int(answer.token_ids == expected.token_ids))
                rows[name]["kl"].append(divergence(expected_logs, logs))
                rows[name]["budget"].append(report["layer_averaged_retained"][0])
        return rows


def divergence(expected: Tensor, logs: Tensor) -> float:
    """Kullback-Leibler divergence in nats of log probabilities ``(V,)`` from those that are expected.

    What the checkpoint's settings forbid, with log probability -inf in both, adds nothing.
    """
    share = expected.exp()
    total = float((share * (expected - logs))[share > 0].sum())
    return max(0.0, total)  # below 0 by rounding only


def videos_in(folder: Path) -> list[Path]:
    """The video files of a folder, by name.

    Raises:
        VideoError: there is none.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS and path.is_file())
    if not found:
        raise VideoError(f"no video in {folder}; files that end in {', '.join(VIDEOS)} are looked for")
    return found


def ask_videos(
    agreement: Agreement, videos: Sequence[Path], progress: Callable[[int, int], None], journal: Journal | None = None
) -> list[Mapping[str, Any]]:
    """What came of every part of every video; a video that a journal has is not asked again.

    A piece of the journal is a video with all of its parts: an interruption leaves none of them out.
    """
    done: dict[str, list[Mapping[str, Any]]] = {}
    for entry in () if journal is None else journal.entries:
        done[entry["video"]] = entry["parts"]
    found: list[Mapping[str, Any]] = []
    for place, video in enumerate(videos):
        progress(place, len(videos))
        if video.name not in done:
            done[video.name] = list(agreement.ask(video))
            if journal is not None:
                journal.add({"video": video.name, "parts": done[video.name]})
        found += done[video.name]
    progress(len(videos), len(videos))
    return found
