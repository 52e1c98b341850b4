# SPDX-License-Identifier: Apache-2.0
"""The Qwen2.5-VL adapter of tokenprune: video files and questions in, answers and reports out.

Importing the package imports nothing heavy; every name below is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenprune.lazy import homes, loaded_on_use

if TYPE_CHECKING:
    from tokenprune_qwen25vl.assets import demo_clip as demo_clip
    from tokenprune_qwen25vl.chat import Conversation as Conversation
    from tokenprune_qwen25vl.chat import model_inputs as model_inputs
    from tokenprune_qwen25vl.checkpoint import shipped_checkpoint as shipped_checkpoint
    from tokenprune_qwen25vl.facade import Qwen25VLPruneVid as Qwen25VLPruneVid
    from tokenprune_qwen25vl.loading import load as load
    from tokenprune_qwen25vl.outputs import Comparison as Comparison
    from tokenprune_qwen25vl.outputs import PruneVidOutput as PruneVidOutput
    from tokenprune_qwen25vl.runner import answer as answer
    from tokenprune_qwen25vl.sampling import Sampling as Sampling
    from tokenprune_qwen25vl.video import VideoClip as VideoClip
    from tokenprune_qwen25vl.video import load_clip as load_clip

# Where each public name lives; a test holds it equal to the imports above.
_PUBLIC = {
    "assets": "demo_clip",
    "chat": "Conversation model_inputs",
    "checkpoint": "shipped_checkpoint",
    "facade": "Qwen25VLPruneVid",
    "outputs": "Comparison PruneVidOutput",
    "loading": "load",
    "runner": "answer",
    "sampling": "Sampling",
    "video": "VideoClip load_clip",
}
_HOME = homes(__name__, _PUBLIC)

__all__ = [*_HOME]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = loaded_on_use(globals(), _HOME)
