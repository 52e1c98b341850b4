# SPDX-License-Identifier: Apache-2.0
"""Any model that an adapter knows behind one class: a video file and a question go in, an answer and its counts out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.errors import InvalidValueError
from tokenprune.hf.frontend.answering import answer, check_new_tokens
from tokenprune.hf.frontend.auto import AUTO
from tokenprune.hf.frontend.chat import Conversation, model_inputs, reading_fit
from tokenprune.hf.frontend.family import Loaded
from tokenprune.hf.frontend.features import VideoFeatures, can_encode_once, encode_video, encoded_before, few_pixels
from tokenprune.hf.frontend.loading import load
from tokenprune.hf.frontend.next_token import GREEDY, Sampling
from tokenprune.hf.frontend.verbose import logged
from tokenprune.hf.frontend.video import VideoClip, load_clip
from tokenprune.messages import shown
from tokenprune.named import AnyPipeline, as_pipeline
from tokenprune.plugins import find_adapter
from tokenprune.runtime.report import Report
from tokenprune.runtime.session import attach
from tokenprune.signals import OF_THE_ENCODER

if TYPE_CHECKING:
    import torch

    from tokenprune.answers import Answer


@dataclass(frozen=True, eq=False)
class PrunedAnswer:
    """One answer, and what became of the visual tokens.

    >>> PrunedAnswer("left", (3,), row=0, report=None).text
    'left'

    Args:
        text: the answer.
        token_ids: of the answer, padding included where others of its batch are longer.
        row: its row of the report.
        report: of the call; None where the pipeline is empty and the prompt could not be read.
    """

    text: str
    token_ids: tuple[int, ...]
    row: int
    report: Report | None = field(repr=False)

    @property
    def visual_tokens(self) -> int | None:
        """Visual tokens of its prompt."""
        return None if self.report is None else self.report.visual_tokens[self.row]

    @property
    def visual_retained(self) -> float | None:
        """Fraction of them that was **kept**."""
        return None if self.report is None else self.report.visual_retained[self.row]


@dataclass(frozen=True)
class _Look:
    """What of a video is shown: the key under which its features are kept."""

    path: str
    changed_ns: int
    frames: int | None
    fps: float | None
    max_pixels: int | None


class VLMPruner:
    """A video model with a pipeline, asked about files.

    >>> pruner = VLMPruner("Qwen/Qwen3-VL-4B-Instruct", "recommended")  # doctest: +SKIP
    >>> pruner.generate("video.mp4", "What moves?").text  # doctest: +SKIP

    Args:
        model_path: a checkpoint directory, or an ``owner/name`` id that the Hugging Face library resolves.
        pipeline: as :func:`tokenprune.attach` takes it.
        device: ``"cpu"``, ``"cuda"``, ...; None takes the GPU where there is one.
        dtype: a torch dtype or ``auto``, ``float32``, ``bfloat16``, ``float16``; None is ``auto``, on a CPU float32.
        attn_implementation: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``, ...; None leaves the library's choice.
        fallback: as :func:`tokenprune.attach` takes it.
        verbose: log what happens at level INFO of the logger ``tokenprune``.
        model: a loaded model, with `processor` and instead of `model_path`.
        processor: its processor.

    Raises:
        InvalidValueError: a parameter is not allowed.
        ModelLoadError: the checkpoint cannot be loaded.
        NoAdapterError: no installed adapter knows the model.
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        pipeline: AnyPipeline = "recommended",
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        fallback: str | None = None,
        verbose: bool = False,
        model: Any = None,
        processor: Any = None,
    ) -> None:
        self.pipeline = as_pipeline(pipeline)
        self.fallback = fallback
        self.verbose = verbose
        if (model is None) != (processor is None) or (model is None) == (model_path is None):
            raise InvalidValueError("give model_path, or both model and processor")
        if model is None:
            self._loaded = load(AUTO, model_path, device, dtype, attn_implementation)
        else:
            if not hasattr(processor, "video_processor"):
                raise InvalidValueError(
                    f"processor must be the checkpoint's own, which shows videos, got {type(processor).__name__}"
                )
            self._loaded = Loaded(model, processor, AUTO.parts(model))
        adapted = find_adapter(self.model)
        stages = self.pipeline.stages(adapted.depth, adapted.readable)
        needs = {name for stage in stages for name in stage.needs}
        self._encoder_needs = tuple(name for name in OF_THE_ENCODER if name in needs)
        self._seen: tuple[_Look, VideoClip, VideoFeatures | None] | None = None

    @property
    def model(self) -> Any:
        """The model, of the library's own class."""
        return self._loaded.model

    @property
    def processor(self) -> Any:
        """The checkpoint's processor."""
        return self._loaded.processor

    def generate(
        self,
        video_path: str | Path | VideoClip,
        question: str,
        max_new_tokens: int = 100,
        *,
        frames: int | None = None,
        fps: float | None = None,
        max_pixels: int | None = None,
        system: str | None = None,
        sampling: Sampling = GREEDY,
    ) -> PrunedAnswer:
        """Answer one question about a video file; see :meth:`generate_many`."""
        asked = self.generate_many(
            video_path,
            [question],
            max_new_tokens,
            frames=frames,
            fps=fps,
            max_pixels=max_pixels,
            system=system,
            sampling=sampling,
        )
        return asked[0]

    def generate_many(
        self,
        video_path: str | Path | VideoClip,
        questions: Sequence[str],
        max_new_tokens: int = 100,
        *,
        frames: int | None = None,
        fps: float | None = None,
        max_pixels: int | None = None,
        system: str | None = None,
        sampling: Sampling = GREEDY,
    ) -> list[PrunedAnswer]:
        """Answer several questions about one video as one batch; the video is decoded once.

        It is encoded once, too, where the vision tower takes patches and grids, and its features are kept for further
        questions about it; other towers see it once for each question.

        Args:
            video_path: a local video file, picture or folder of pictures; or a clip that is read already, which takes
                neither `frames` nor `fps` and is encoded at each call.
            questions: at least one.
            max_new_tokens: length of each answer, at most.
            frames: so many frames, evenly spread; or
            fps: so many frames a second (2 where neither is given).
            max_pixels: pixels of a frame after resizing, at most.
            system: system prompt; None leaves the template's own.
            sampling: greedy unless said otherwise.

        Raises:
            VideoError: the file cannot be read.
            InvalidValueError: an argument is not allowed.
        """
        if isinstance(questions, str) or not questions:
            raise InvalidValueError("questions must be a list of at least one question")
        check_new_tokens(max_new_tokens)
        clip, features = self._look(video_path, frames, fps, max_pixels)
        conversations = [Conversation(question, (clip,), system) for question in questions]
        inputs = model_inputs(self.processor, conversations, max_pixels)
        tower = self._loaded.parts.tower
        seen: Any = nullcontext()
        if features is not None:
            inputs["pixel_values_videos"] = few_pixels(tower, inputs["pixel_values_videos"])
            seen = encoded_before(tower, features.repeat(len(questions)))
        moved = {name: value.to(self.model.device) for name, value in inputs.items()}
        with logged(self.verbose), attach(self.model, self.pipeline, fallback=self.fallback) as session, seen:
            output = self.model.generate(**moved, max_new_tokens=max_new_tokens, **sampling.options())
        new = output[:, moved["input_ids"].shape[1] :].tolist()
        texts = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [
            PrunedAnswer(str(text).strip(), tuple(ids), row, session.report)
            for row, (text, ids) in enumerate(zip(texts, new, strict=True))
        ]

    def compare(
        self,
        video_path: str | Path | VideoClip,
        question: str,
        max_new_tokens: int = 100,
        *,
        frames: int | None = None,
        fps: float | None = None,
        max_pixels: int | None = None,
        system: str | None = None,
    ) -> tuple[Answer, Answer]:
        """Answer greedily with everything off, then pruned, both after a warm-up and with the vision tower running."""
        clip = self._clip(video_path, frames, fps, max_pixels)
        inputs = model_inputs(self.processor, [Conversation(question, (clip,), system)], max_pixels)
        check_new_tokens(max_new_tokens)
        answer(self._loaded, inputs, None, 1)
        with logged(self.verbose):  # of the warm-up, because it takes time
            answer(self._loaded, inputs, self.pipeline, 1, fallback=self.fallback)
        plain = answer(self._loaded, inputs, None, max_new_tokens)
        return plain, answer(self._loaded, inputs, self.pipeline, max_new_tokens, fallback=self.fallback)

    def _look(
        self, video: str | Path | VideoClip, frames: int | None, fps: float | None, max_pixels: int | None
    ) -> tuple[VideoClip, VideoFeatures | None]:
        """The clip and its features, from the last call where it was the same file."""
        if not isinstance(video, (str, Path)):  # the frames of a clip may have changed since
            return self._encoded(self._clip(video, frames, fps, max_pixels), max_pixels)
        place = Path(video)
        changed = place.stat().st_mtime_ns if place.exists() else 0
        look = _Look(str(place.absolute()), changed, frames, fps, max_pixels)
        if self._seen is None or self._seen[0] != look:
            self._seen = (look, *self._encoded(self._clip(place, frames, fps, max_pixels), max_pixels))
        return self._seen[1], self._seen[2]

    def _clip(
        self, video: str | Path | VideoClip, frames: int | None, fps: float | None, max_pixels: int | None
    ) -> VideoClip:
        if isinstance(video, (str, Path)):
            return load_clip(video, frames=frames, fps=fps, fit=reading_fit(self.processor, max_pixels))
        if not isinstance(video, VideoClip):
            raise InvalidValueError(
                f"video_path must be a path, or a clip by VideoClip.from_frames, got {shown(video)}"
            )
        if frames is not None or fps is not None:
            raise InvalidValueError("frames and fps are for files: those of a clip have been chosen")
        return video

    def _encoded(self, clip: VideoClip, max_pixels: int | None) -> tuple[VideoClip, VideoFeatures | None]:
        inputs = model_inputs(self.processor, [Conversation("?", (clip,))], max_pixels)
        parts = self._loaded.parts
        return clip, encode_video(parts, inputs, self._encoder_needs) if can_encode_once(parts, inputs) else None
