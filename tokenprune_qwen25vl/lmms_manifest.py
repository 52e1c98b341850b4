# SPDX-License-Identifier: Apache-2.0
# pyright: reportMissingImports=false
"""What lmms-eval reads at its start (entry-point group ``lmms_eval.models``): a name and where its class is."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

MANIFEST = ModelManifest(
    model_id="tokenprune_qwen25vl", chat_class_path="tokenprune_qwen25vl.lmms.PrunedQwen25VL", aliases=("tokenprune",)
)
