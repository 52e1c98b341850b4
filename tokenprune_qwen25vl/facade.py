# SPDX-License-Identifier: Apache-2.0
"""PruneVid on Qwen2.5-VL behind one class: a video file and a question go in, an answer and its counts come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokenprune import AttnPrune, Pipeline, STMerge, attach
from tokenprune.bench.multiple_choice import ask_for_letter, named_option
from tokenprune.errors import InvalidValueError
from tokenprune.hf.frontend.answering import check_new_tokens
from tokenprune.hf.frontend.features import encode, encoded_before, few_pixels
from tokenprune.hf.frontend.verbose import logged
from tokenprune.runtime.report import Report
from tokenprune.signals import OF_THE_ENCODER
from tokenprune_qwen25vl.chat import Conversation, model_inputs, reading_fit
from tokenprune_qwen25vl.loading import load
from tokenprune_qwen25vl.outputs import Comparison, PruneVidOutput
from tokenprune_qwen25vl.parts import require_parts
from tokenprune_qwen25vl.runner import answer
from tokenprune_qwen25vl.sampling import GREEDY, Sampling
from tokenprune_qwen25vl.video import VideoClip, load_clip

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor


@dataclass(frozen=True)
class _Look:
    """What of a video is shown: the key under which its features are kept."""

    path: str
    changed_ns: int
    frames: int | None
    fps: float | None
    max_pixels: int | None


class Qwen25VLPruneVid:
    """Qwen2.5-VL with PruneVid's three stages.

    >>> from tokenprune_qwen25vl import demo_clip
    >>> pruned = Qwen25VLPruneVid(keep_ratio=0.6, device="cpu")
    >>> pruned.generate(demo_clip(), "Which way does the red circle move?").generated_text
    'left'

    Args:
        model_path: a checkpoint directory or hub id; None is the small model that ships with the package.
        enable_stage1: merge tokens before the LLM (``tau``, ``cluster_ratio``, ``temporal_segment_ratio``).
        tau: mean cosine from which a position is static.
        cluster_ratio: fraction of tokens **kept** by each spatial clustering.
        temporal_segment_ratio: frame clusters per frame.
        enable_pruning: stages 2 and 3: prune after ``pruning_layer`` and cut the KV cache.
        keep_ratio: fraction of the visual tokens **kept** by stage 2.
        pruning_layer: as ``AttnPrune.layer``: 0-based index, or fraction of the depth.
        verbose: log what happens at level INFO of the logger ``tokenprune``.
        device, dtype, attn_implementation: as :func:`tokenprune_qwen25vl.loading.load` takes them.
        model, processor: loaded ones, instead of ``model_path``; both or none.

    Raises:
        InvalidValueError: a parameter is not allowed.
        ModelLoadError: the checkpoint cannot be loaded.
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        enable_stage1: bool = True,
        tau: float = 0.8,
        cluster_ratio: float = 0.5,
        temporal_segment_ratio: float = 0.25,
        enable_pruning: bool = True,
        keep_ratio: float = 0.4,
        pruning_layer: int | float = 0.36,
        verbose: bool = False,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        model: Qwen2_5_VLForConditionalGeneration | None = None,
        processor: Qwen2_5_VLProcessor | None = None,
    ) -> None:
        merge = STMerge(tau, cluster_ratio, temporal_segment_ratio)
        prune = AttnPrune(layer=pruning_layer, keep_ratio=keep_ratio)
        self.pipeline = Pipeline([*([merge] if enable_stage1 else []), *([prune] if enable_pruning else [])])
        self.verbose = verbose
        if (model is None) != (processor is None) or (model is not None and model_path is not None):
            raise InvalidValueError("give model_path, or both model and processor")
        if model is None or processor is None:
            model, processor = load(model_path, device, dtype, attn_implementation)
        self.model, self.processor = model, processor
        needs = {name for stage in self.pipeline.stages(len(require_parts(model).text.layers)) for name in stage.needs}
        self._encoder_needs = tuple(name for name in OF_THE_ENCODER if name in needs)
        self._seen: tuple[_Look, VideoClip, Tensor] | None = None

    def generate(
        self,
        video_path: str | Path,
        question: str,
        max_new_tokens: int = 100,
        *,
        frames: int | None = None,
        fps: float | None = None,
        max_pixels: int | None = None,
        system: str | None = None,
        sampling: Sampling = GREEDY,
    ) -> PruneVidOutput:
        """Answer one question about a video file; see :meth:`generate_many`."""
        return self.generate_many(
            video_path,
            [question],
            max_new_tokens,
            frames=frames,
            fps=fps,
            max_pixels=max_pixels,
            system=system,
            sampling=sampling,
        )[0]

    def generate_many(
        self,
        video_path: str | Path,
        questions: Sequence[str],
        max_new_tokens: int = 100,
        *,
        frames: int | None = None,
        fps: float | None = None,
        max_pixels: int | None = None,
        system: str | None = None,
        sampling: Sampling = GREEDY,
    ) -> list[PruneVidOutput]:
        """Answer several questions about one video as one batch; the video is decoded and encoded once.

        The last video's features are kept, so that further questions about it do not encode it again.

        Args:
            video_path: a local video file.
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
        tower = require_parts(self.model).tower
        inputs["pixel_values_videos"] = few_pixels(tower, inputs["pixel_values_videos"])
        moved: dict[str, Any] = {name: value.to(self.model.device) for name, value in inputs.items()}
        runnable: Any = self.model  # the library types generate by what it can be bound to
        with (
            logged(self.verbose),
            attach(self.model, self.pipeline) as session,
            encoded_before(tower, features.repeat(len(questions), 1)),
        ):
            output = runnable.generate(**moved, max_new_tokens=max_new_tokens, **sampling.options())
        return self._outputs(output[:, moved["input_ids"].shape[1] :], session.report)

    def process_egoschema_sample(
        self,
        video_path: str | Path,
        question: str,
        options: Sequence[str],
        max_new_tokens: int = 16,
        *,
        frames: int | None = None,
        fps: float | None = None,
        max_pixels: int | None = None,
        system: str | None = None,
    ) -> tuple[int, str, dict[str, Any]]:
        """Answer a multiple-choice question.

        Returns:
            The index of the option that the answer names (-1: none, then ``stats["parsed"]`` is False), the answer as
            given, and the stats: the counts of :class:`PruneVidOutput` and ``parsed``.

        Raises:
            VideoError: the file cannot be read.
            InvalidValueError: an argument is not allowed.
        """
        asked = ask_for_letter(question, options)
        result = self.generate(
            video_path, asked, max_new_tokens, frames=frames, fps=fps, max_pixels=max_pixels, system=system
        )
        prediction = named_option(result.generated_text, options)
        stats: dict[str, Any] = {
            name: getattr(result, name)
            for name in (
                "tokens_before_stage1",
                "tokens_after_stage1",
                "tokens_before",
                "tokens_after",
                "total_compression_ratio",
            )
        }
        return prediction, result.generated_text, {**stats, "parsed": prediction >= 0}

    def compare(
        self,
        video_path: str | Path,
        question: str,
        max_new_tokens: int = 100,
        *,
        frames: int | None = None,
        fps: float | None = None,
        max_pixels: int | None = None,
        system: str | None = None,
    ) -> Comparison:
        """Answer greedily with everything off, then pruned, both after a warm-up and with the vision tower running."""
        clip = load_clip(video_path, frames=frames, fps=fps, fit=reading_fit(self.processor, max_pixels))
        inputs = model_inputs(self.processor, [Conversation(question, (clip,), system)], max_pixels)
        check_new_tokens(max_new_tokens)
        answer(self.model, self.processor, inputs, None, 1)
        with logged(self.verbose):  # of the warm-up, because it takes time
            answer(self.model, self.processor, inputs, self.pipeline, 1)
        plain = answer(self.model, self.processor, inputs, None, max_new_tokens)
        return Comparison(plain, answer(self.model, self.processor, inputs, self.pipeline, max_new_tokens))

    def _look(
        self, path: str | Path, frames: int | None, fps: float | None, max_pixels: int | None
    ) -> tuple[VideoClip, Tensor]:
        """The clip and its features, from the last call where it was the same."""
        place = Path(path)
        changed = place.stat().st_mtime_ns if place.exists() else 0
        look = _Look(str(place.absolute()), changed, frames, fps, max_pixels)
        if self._seen is None or self._seen[0] != look:
            clip = load_clip(place, frames=frames, fps=fps, fit=reading_fit(self.processor, max_pixels))
            inputs = model_inputs(self.processor, [Conversation("?", (clip,))], max_pixels)
            self._seen = (look, clip, encode(require_parts(self.model), inputs, self._encoder_needs))
        return self._seen[1], self._seen[2]

    def _outputs(self, new: Tensor, report: Report | None) -> list[PruneVidOutput]:
        texts = [str(text).strip() for text in self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)]
        if report is None:
            raise InvalidValueError("the prompt holds no visual tokens")
        outputs: list[PruneVidOutput] = []
        for row, text in enumerate(texts):
            first = report.visual_tokens[row]
            merged = next((s["visual_after"][row] for s in report.stages if s["site"] == "before_llm"), first)
            last = next((s["visual_after"][row] for s in report.stages if s["site"] == "after_layer"), merged)
            outputs.append(PruneVidOutput(text, first, merged, merged, last, report.compression_ratio[row], report))
        return outputs
