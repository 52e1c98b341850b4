# SPDX-License-Identifier: Apache-2.0
"""The families that are served, a row each. Qwen2.5-VL is not among them: it has a package of its own."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from typing import Any

from tokenprune.carried import GATHER, MERGE, Carried
from tokenprune.hf.families.family import Family
from tokenprune.hf.families.grids.frames import BoundedFrames, TimestampedFrames
from tokenprune.hf.families.grids.mrope import MropeRuns, MropeRunsBesideAudio
from tokenprune.hf.families.grids.squares import CountedRuns, SquareRuns, Squares

ANY_TEXT = ("Qwen2Model", "Qwen3Model", "LlamaModel")
DEEPSTACK = Carried("deepstack_visual_embeds", MERGE, packed_by="visual_pos_masks")
AS_IMAGES = {"image": "image_token_id"}
OMNI_REFUSED = {
    "use_audio_in_video": "audio inside a video stands between its frames, which would be read as many videos",
    "output_hidden_states": "a talker reads the hidden states of every token, some of which would be gone",
}


def _patches(config: Any) -> int:
    """Patches along a side of the vision tower's square input."""
    size, patch = config.vision_config.image_size, config.vision_config.patch_size
    return int(size if isinstance(size, int) else size[0]) // int(patch if isinstance(patch, int) else patch[0])


def _halved(config: Any) -> int:
    return _patches(config) // 2


def _halved_up(config: Any) -> int:
    return -(-_patches(config) // 2)


ONEVISION_SQUARES = Squares(video=_halved_up, image=_patches, tail=1)


def _root(config: Any) -> int:
    return isqrt(int(config.image_seq_length))


def _unshuffled(config: Any) -> int:
    return _patches(config) // int(config.scale_factor)


def _ids(*sizes: str, of: str) -> tuple[str, ...]:
    return tuple(of.format(size) for size in sizes)


QWEN2_VL = Family(
    name="qwen2_vl",
    model_type="qwen2_vl",
    model_class="Qwen2VLForConditionalGeneration",
    grid=MropeRuns(),
    encoder=True,
    note="read as Qwen2.5-VL is",
    known=_ids("2", "7", "72", of="Qwen/Qwen2-VL-{}B-Instruct"),
)
QWEN3_VL = Family(
    name="qwen3_vl",
    model_type="qwen3_vl",
    model_class="Qwen3VLForConditionalGeneration",
    grid=TimestampedFrames(),
    carried=(DEEPSTACK,),
    encoder=True,
    note="timestamps between frames stay as text; deepstack features are merged as the embeddings are",
    known=_ids("2", "4", "8", "32", of="Qwen/Qwen3-VL-{}B-Instruct"),
)
QWEN3_VL_MOE = replace(
    QWEN3_VL,
    name="qwen3_vl_moe",
    model_type="qwen3_vl_moe",
    model_class="Qwen3VLMoeForConditionalGeneration",
    known=_ids("30B-A3B", "235B-A22B", of="Qwen/Qwen3-VL-{}-Instruct"),
)
QWEN3_5 = replace(
    QWEN3_VL,
    name="qwen3_5",
    model_type="qwen3_5",
    model_class="Qwen3_5ForConditionalGeneration",
    carried=(),
    note="linear-attention layers run on the tokens that are there; only the other layers are read and cut",
    known=_ids("0.8B", "2B", "4B", "9B", "27B", of="Qwen/Qwen3.5-{}"),
)
QWEN3_5_MOE = replace(
    QWEN3_5,
    name="qwen3_5_moe",
    model_type="qwen3_5_moe",
    model_class="Qwen3_5MoeForConditionalGeneration",
    known=_ids("35B-A3B", "122B-A10B", "397B-A17B", of="Qwen/Qwen3.5-{}"),
)
COSMOS3_EDGE = replace(
    QWEN3_VL,
    name="cosmos3_edge",
    model_type="cosmos3_edge",
    model_class="Cosmos3EdgeForConditionalGeneration",
    carried=(),
    encoder=False,
    note="laid out as Qwen3-VL, without deepstack",
    known=(),
)
QWEN25_OMNI = Family(
    name="qwen2_5_omni_thinker",
    model_type="qwen2_5_omni_thinker",
    model_class="Qwen2_5OmniThinkerForConditionalGeneration",
    grid=MropeRunsBesideAudio(),
    earlier=("", "model", "visual"),
    refused_arguments=OMNI_REFUSED,
    note="the thinker alone (model.thinker), without its talker; audio stands before or after a video, not inside it",
)
QWEN3_OMNI = replace(
    QWEN25_OMNI,
    name="qwen3_omni_moe_thinker",
    model_type="qwen3_omni_moe_thinker",
    model_class="Qwen3OmniMoeThinkerForConditionalGeneration",
    carried=(DEEPSTACK,),
)
GLM4V = Family(
    name="glm4v",
    model_type="glm4v",
    model_class="Glm4vForConditionalGeneration",
    grid=BoundedFrames(),
    placeholders=AS_IMAGES,
    note="frames have the placeholder of images; rotation by pairs over half of each head",
    known=("zai-org/GLM-4.1V-9B-Thinking",),
)
GLM4V_MOE = replace(
    GLM4V,
    name="glm4v_moe",
    model_type="glm4v_moe",
    model_class="Glm4vMoeForConditionalGeneration",
    note="frames have the placeholder of images; partial rotation by halves",
    known=("zai-org/GLM-4.5V",),
)
GLM46V = replace(
    GLM4V,
    name="glm46v",
    model_type="glm46v",
    model_class="Glm46VForConditionalGeneration",
    note="frames have the placeholder of images",
    known=("zai-org/GLM-4.6V", "zai-org/GLM-4.6V-Flash"),
)
ERNIE45_VL = Family(
    name="ernie4_5_vl_moe",
    model_type="ernie4_5_vl_moe",
    model_class="Ernie4_5_VLMoeForConditionalGeneration",
    grid=MropeRuns(),
    tower="model.vision_tower",
    carried=(Carried("moe_mm_token_type_ids", GATHER),),
    note="the token types that route its experts travel with the tokens, to every layer",
    known=("baidu/ERNIE-4.5-VL-28B-A3B-PT",),
)
LLAVA_ONEVISION = Family(
    name="llava_onevision",
    model_type="llava_onevision",
    model_class="LlavaOnevisionForConditionalGeneration",
    grid=ONEVISION_SQUARES,
    tower="model.vision_tower",
    decoders=ANY_TEXT,
    note="the newline after a video or image stays as text; an image in tiles (anyres) is refused",
    known=_ids("0.5", "7", "72", of="llava-hf/llava-onevision-qwen2-{}b-ov-hf"),
)
LLAVA_NEXT_VIDEO = Family(
    name="llava_next_video",
    model_type="llava_next_video",
    model_class="LlavaNextVideoForConditionalGeneration",
    grid=Squares(video=_halved, image=_patches),
    tower="model.vision_tower",
    decoders=ANY_TEXT,
    note="an image in tiles (anyres) is refused, and with it every image of the released models",
    known=("llava-hf/LLaVA-NeXT-Video-7B-hf",),
)
INTERNVL = Family(
    name="internvl",
    model_type="internvl",
    model_class="InternVLForConditionalGeneration",
    grid=SquareRuns(_root, shortest=5, longest=11),  # "</img>\nFrame2: <img>"
    tower="model.vision_tower",
    placeholders=AS_IMAGES,
    decoders=ANY_TEXT,
    note="InternVL3 and 3.5; frames and images have one placeholder: the text between tells, and one frame is an image",
    known=_ids("3-2B-hf", "3-8B-hf", "3_5-8B-HF", of="OpenGVLab/InternVL{}"),
)
SMOLVLM = Family(
    name="smolvlm",
    model_type="smolvlm",
    model_class="SmolVLMForConditionalGeneration",
    grid=SquareRuns(_unshuffled, shortest=8, longest=17),  # "<fake>\nFrame from 00:05:<fake><global>"
    text="model.text_model",
    tower="model.vision_model",
    placeholders=AS_IMAGES,
    decoders=ANY_TEXT,
    needs=("num2words",),
    note="SmolVLM2; frames and images have one placeholder: the text between tells, and one frame is an image",
    known=_ids("256M-Video", "500M-Video", "2.2B", of="HuggingFaceTB/SmolVLM2-{}-Instruct"),
)
VIDEO_LLAMA_3 = Family(
    name="video_llama_3",
    model_type="video_llama_3",
    model_class="VideoLlama3ForConditionalGeneration",
    grid=CountedRuns(longest=13),  # ",Time 12.0s:"
    tower="model.vision_model",
    decoders=ANY_TEXT,
    note="a frame is a strip of tokens, its height and width are not in the prompt; compressed frames are refused",
    known=("lkhl/VideoLLaMA3-2B-Image-HF",),
)

FAMILIES = (
    QWEN2_VL,
    QWEN3_VL,
    QWEN3_VL_MOE,
    QWEN3_5,
    QWEN3_5_MOE,
    COSMOS3_EDGE,
    QWEN25_OMNI,
    QWEN3_OMNI,
    GLM4V,
    GLM4V_MOE,
    GLM46V,
    ERNIE45_VL,
    LLAVA_ONEVISION,
    LLAVA_NEXT_VIDEO,
    INTERNVL,
    SMOLVLM,
    VIDEO_LLAMA_3,
)
