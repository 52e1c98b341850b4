# SPDX-License-Identifier: Apache-2.0
"""PruneVid on Qwen2.5-VL behind one class: a video file and a question go in, an answer and its counts come out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune import AttnPrune, Pipeline, STMerge
from tokenprune.bench.multiple_choice import ask_for_letter, named_option
from tokenprune.errors import InvalidValueError
from tokenprune.hf.vlm_pruner import PrunedAnswer, VLMPruner
from tokenprune_qwen25vl.loading import load
from tokenprune_qwen25vl.outputs import Comparison, PruneVidOutput
from tokenprune_qwen25vl.sampling import GREEDY, Sampling

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

    from tokenprune.hf.frontend.video import VideoClip


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
        pipeline = Pipeline([*([merge] if enable_stage1 else []), *([prune] if enable_pruning else [])])
        if (model is None) != (processor is None) or (model is not None and model_path is not None):
            raise InvalidValueError("give model_path, or both model and processor")
        if model is None or processor is None:
            model, processor = load(model_path, device, dtype, attn_implementation)
        self._pruner = VLMPruner(pipeline=pipeline, verbose=verbose, model=model, processor=processor)

    @property
    def model(self) -> Qwen2_5_VLForConditionalGeneration:
        """The model."""
        return self._pruner.model

    @property
    def processor(self) -> Qwen2_5_VLProcessor:
        """The checkpoint's processor."""
        return self._pruner.processor

    @property
    def pipeline(self) -> Pipeline:
        """The stages that are enabled."""
        return self._pruner.pipeline

    @property
    def verbose(self) -> bool:
        """Whether what happens is logged."""
        return self._pruner.verbose

    @verbose.setter
    def verbose(self, on: bool) -> None:
        self._pruner.verbose = on

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
        video_path: str | Path | VideoClip,
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
            video_path: a local video file, or a clip that is read already, which takes neither `frames` nor `fps`.
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
        answers = self._pruner.generate_many(
            video_path,
            questions,
            max_new_tokens,
            frames=frames,
            fps=fps,
            max_pixels=max_pixels,
            system=system,
            sampling=sampling,
        )
        return [_counted(answer) for answer in answers]

    def process_egoschema_sample(
        self,
        video_path: str | Path | VideoClip,
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
        video_path: str | Path | VideoClip,
        question: str,
        max_new_tokens: int = 100,
        *,
        frames: int | None = None,
        fps: float | None = None,
        max_pixels: int | None = None,
        system: str | None = None,
    ) -> Comparison:
        """Answer greedily with everything off, then pruned, both after a warm-up and with the vision tower running."""
        plain, pruned = self._pruner.compare(
            video_path, question, max_new_tokens, frames=frames, fps=fps, max_pixels=max_pixels, system=system
        )
        return Comparison(plain, pruned)


def _counted(answer: PrunedAnswer) -> PruneVidOutput:
    """The answer with PruneVid's own counts."""
    report, row = answer.report, answer.row
    if report is None:
        raise InvalidValueError("the prompt holds no visual tokens")
    first = report.visual_tokens[row]
    merged = next((stage["visual_after"][row] for stage in report.stages if stage["site"] == "before_llm"), first)
    last = next((stage["visual_after"][row] for stage in report.stages if stage["site"] == "after_layer"), merged)
    return PruneVidOutput(answer.text, first, merged, merged, last, report.compression_ratio[row], report)
