# SPDX-License-Identifier: Apache-2.0
"""Every way of running a model either works, or is refused by name before anything runs."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.names import CACHE, TAKES_ENCODED, cache_of
from hf.prompts import Clip, Prompt, image, prompt, shared_model
from hf.running import alone, answers, contents, counted, kept, same_contents, sequences, state_of
from qwen25vl.tiny import tiny_model, tiny_processor
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, TextIteratorStreamer, TextStreamer
from transformers.cache_utils import StaticCache

import tokenprune as tp

PIPE = tp.Pipeline([tp.STMerge(keep_ratio=0.7), tp.AttnPrune(layer=1, keep_ratio=0.5)])
RAGGED = prompt([[5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 3, Clip(2, 2, 3), 7]])
ONE = alone(RAGGED, 0)


def run(model: Any, given: Prompt, **more: Any) -> tuple[list[list[int]], list[list[int]]]:
    """Answer and kept columns in a fresh session."""
    with tp.attach(model, PIPE) as session:
        return answers(model, given, **more), kept(session)


class Recorder(TextStreamer):
    """Keeps every token that it is given."""

    def __init__(self) -> None:
        super().__init__(tiny_processor().tokenizer)
        self.tokens: list[int] = []

    def put(self, value: Tensor) -> None:
        self.tokens += value.flatten().tolist()


# --- what works ------------------------------------------------------------------------------------------------------


def test_pruning_shows() -> None:
    """Pruned and plain answers differ, so that the equalities below say something."""
    model = shared_model()
    for given in (ONE, RAGGED):
        assert run(model, given)[0] != answers(model, given)


def test_sampling_with_a_seed_equals_itself() -> None:
    model = shared_model()
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(run(model, RAGGED, new=6, do_sample=True, temperature=2.0))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] == found[2][1] == run(model, RAGGED)[1]


def test_streaming() -> None:
    model, streamer = shared_model(), Recorder()
    expected = run(model, ONE)
    assert run(model, ONE, streamer=streamer) == expected
    assert streamer.tokens == [*ONE.ids[0].tolist(), *expected[0][0]]


def test_streaming_from_a_thread() -> None:
    model, tokenizer = shared_model(), tiny_processor().tokenizer
    with tp.attach(model, PIPE) as session:
        expected = tokenizer.decode(answers(model, ONE)[0])
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
        thread = threading.Thread(target=lambda: answers(model, ONE, streamer=streamer))
        thread.start()
        assert "".join(streamer) == expected
        thread.join()
        assert len(session.reports) == 2
        assert answers(model, ONE) == answers(model, ONE)


def log_probability(model: Any, given: Prompt, tokens: list[int]) -> float:
    """Of an answer to one row, one token at a time."""
    with torch.no_grad():
        out = model(**given.inputs())
        total = 0.0
        delta = model.model.rope_deltas
        for step, token in enumerate(tokens):
            total += float(out.logits[0, -1].log_softmax(-1)[token])  # beams suppress tokens after the softmax
            out = model(
                input_ids=torch.tensor([[token]]),
                **{CACHE: cache_of(out)},
                position_ids=(delta + given.length + step).expand(3, 1, 1),
            )
    return total


@pytest.mark.parametrize("sample", [False, True])
def test_beams_and_return_sequences(sample: bool) -> None:
    model = shared_model()
    with tp.attach(model, PIPE) as session:
        answers(model, RAGGED)
        expected = session.report
        torch.manual_seed(0)
        out = sequences(
            model,
            RAGGED.inputs(),
            num_beams=3,
            num_return_sequences=2,
            do_sample=sample,
            length_penalty=0.0,
            output_scores=True,
            return_dict_in_generate=True,
        )
        report = session.report
        assert report.expanded == 3
        assert len(out.sequences) == 4
        assert [row.tolist() for row in report.kept] == [row.tolist() for row in expected.kept]
        described = report.to_dict()
        for key in ("prompt_tokens", "visual_tokens", "layer_tokens", "visual_retained", "compression_ratio"):
            assert described[key] == expected.to_dict()[key]
        assert report.kv_bytes == 3 * expected.kv_bytes
        assert report.kv_bytes_unpruned == 3 * expected.kv_bytes_unpruned
        if not sample:
            for place, found in enumerate(out.sequences[:, RAGGED.length :].tolist()):
                wanted = log_probability(model, alone(RAGGED, place // 2), found)
                assert float(out.sequences_scores[place]) == pytest.approx(wanted, abs=1e-3)


def test_several_return_sequences_without_beams() -> None:
    model = shared_model()
    torch.manual_seed(1)
    with tp.attach(model, PIPE) as session:
        found = answers(model, RAGGED, do_sample=True, num_return_sequences=3, temperature=2.0)
        assert session.report.expanded == 3
        assert len(session.report.kept) == len(session.report.to_dict()["prompt_tokens"]) == 2
        assert len(found) == 6
        assert len({tuple(row) for row in found}) > 2


def test_text_only_prompts_pass_through() -> None:
    model, text = shared_model(), prompt([[9], [4]])
    plain = answers(model, text)
    with tp.attach(model, PIPE) as session:
        assert answers(model, text) == plain
        assert session.report is None


def test_text_only_rows_beside_a_video() -> None:
    model, mixed = shared_model(), prompt([[40], [5, Clip(3, 2, 3), 6]])
    plain = answers(model, mixed)
    with tp.attach(model, PIPE) as session:
        found = answers(model, mixed)
        assert session.report.visual_retained == [1.0, 7 / 18]
        assert kept(session)[0] == list(range(40))
    assert found[0] == plain[0]
    assert found[1] == run(model, alone(mixed, 1))[0][0]


def test_images_beside_videos() -> None:
    model, mixed = shared_model(), prompt([[3, image(3, 2), 4, Clip(3, 2, 3), 6, image(2, 2), 5]])
    _, columns = run(model, mixed)
    images = [p.column + i for p in mixed.placed("image") for i in range(p.clip.count)]
    assert set(images) < set(columns[0])
    assert len(columns[0]) == mixed.length - 18 + 7
    both = tp.Pipeline([tp.AttnPrune(layer=1, keep=4, modalities=("image", "video"))])
    with tp.attach(model, both) as session:
        answers(model, mixed)
        assert session.report.visual_tokens == [28]
        assert len(kept(session)[0]) == mixed.length - 24


@pytest.mark.skipif(not TAKES_ENCODED, reason="this release takes no mm_encoder_outputs")
def test_given_encoder_outputs() -> None:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    model, given = shared_model(), ONE.inputs()
    features = model.model.get_video_features(given["pixel_values_videos"], given["video_grid_thw"]).pooler_output
    encoded = {"video": BaseModelOutputWithPooling(pooler_output=tuple(features))}
    found = run(model, ONE, pixel_values_videos=None, mm_encoder_outputs=encoded)
    assert found == run(model, ONE)


def test_without_a_cache() -> None:
    model = shared_model()
    for given in (ONE, RAGGED):
        with tp.attach(model, tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=0.5)])) as session:
            cached = sequences(model, given.inputs(), new=1, output_logits=True, return_dict_in_generate=True)
            columns = kept(session)
            bare = sequences(
                model, given.inputs(), new=1, use_cache=False, output_logits=True, return_dict_in_generate=True
            )
            assert kept(session) == columns
            assert session.report.kv_bytes is session.report.kv_bytes_unpruned is None
            assert torch.allclose(bare.logits[0], cached.logits[0], atol=1e-4)


def test_hidden_states_have_the_length_that_each_layer_saw() -> None:
    model = shared_model()
    with tp.attach(model, PIPE) as session:
        out = sequences(model, RAGGED.inputs(), output_hidden_states=True, return_dict_in_generate=True, new=3)
        expected = answers(model, RAGGED, new=3)
        longest = [max(tokens) for tokens in session.report.layer_tokens]
    assert out.sequences[:, RAGGED.length :].tolist() == expected
    prefill, *steps = out.hidden_states
    after = max(map(len, kept(session)))
    assert [state.shape[1] for state in prefill] == [longest[0], longest[1], after, after, after]
    assert longest == [longest[0], longest[0], after, after]
    assert all(state.shape[1] == 1 for step in steps for state in step)


@pytest.mark.parametrize(
    "make", [tp.PrunableDynamicCache, DynamicCache, lambda: DynamicCache(config=shared_model().config)]
)
def test_a_cache_of_ones_own(make: Any) -> None:
    model, cache = shared_model(), make()
    expected = run(model, RAGGED)
    assert run(model, RAGGED, **{CACHE: cache}) == expected
    assert {layer.stored for layer in cache.layers} == {max(map(len, expected[1])) + 3}
    assert cache.get_seq_length() == RAGGED.length + 3


@pytest.mark.parametrize("implementation", ["dynamic", None])
def test_named_dynamic_caches(implementation: str | None) -> None:
    model = shared_model()
    assert run(model, ONE, generation_config=GenerationConfig(cache_implementation=implementation)) == run(model, ONE)


def test_bfloat16() -> None:
    model = tiny_model().to(torch.bfloat16)
    given = {n: v.bfloat16() if v.is_floating_point() else v for n, v in RAGGED.inputs().items()}
    with tp.attach(model, PIPE) as session:
        first = sequences(model, given)
        columns = kept(session)
        assert torch.equal(sequences(model, given), first)
        assert kept(session) == columns
        assert session.report.to_dict()["stages"][-1]["visual_after"] == [7, 8]
        assert session.report.kv_bytes == 2 * 4 * 2 * 2 * 8 * 2 * max(map(len, columns))
    assert sequences(model, given).shape == first.shape


def test_peft() -> None:
    """Scores are read behind LoRA's own forward, so another adapter can keep other tokens."""
    peft = pytest.importorskip("peft")
    model = tiny_model()
    expected = run(model, RAGGED)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.5)
    answers(wrapped, ONE)
    before = state_of(wrapped)
    with tp.attach(wrapped, PIPE) as session:
        with pytest.raises(tp.AlreadyAttachedError):
            tp.attach(model, PIPE)
        found = answers(wrapped, RAGGED), kept(session)
        with wrapped.disable_adapter():
            assert (answers(wrapped, RAGGED), kept(session)) == expected
        with pytest.raises(tp.UnsupportedModeError, match="prompt_lookup"):
            answers(wrapped, RAGGED, prompt_lookup_num_tokens=2)
    assert found[1] != expected[1]
    assert state_of(wrapped) == before
    merged = wrapped.merge_and_unload()
    assert run(merged, RAGGED)[1] == found[1]


@pytest.mark.parametrize("offload", [False, True])
def test_accelerate(offload: bool, tmp_path: Any) -> None:
    """With ``offload`` weights are on meta until a module's forward: nothing may read them directly."""
    accelerate = pytest.importorskip("accelerate")
    model = tiny_model()
    expected = run(model, RAGGED)
    if offload:
        accelerate.disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
        assert model.model.language_model.layers[0].self_attn.q_proj.weight.is_meta
    else:
        accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)
        assert hasattr(model, "_hf_hook")
    before = state_of(model)
    assert run(model, RAGGED) == expected
    assert {n: set(s) for n, s in state_of(model).items()} == {n: set(s) for n, s in before.items()}


def test_attention_outputs_do_not_disturb() -> None:
    model = shared_model("eager")
    with tp.attach(model, PIPE) as session:
        expected = answers(model, RAGGED), kept(session)
        out = sequences(model, RAGGED.inputs(), output_attentions=True, return_dict_in_generate=True)
        assert (out.sequences[:, RAGGED.length :].tolist(), kept(session)) == expected
        assert len({attention.shape[-1] for attention in out.attentions[0]}) == 2


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(match: str, error: type[Exception] = tp.UnsupportedModeError, given: Prompt = ONE, **more: Any) -> None:
    """Assert that ``generate`` refuses, that nothing ran, and that the session goes on as if it had not been asked."""
    model = shared_model()
    before = state_of(model)
    cache = more.get(CACHE)
    held = None if cache is None else (list(cache.layers), contents(cache))
    with tp.attach(model, PIPE) as session:
        attached = state_of(model)
        with counted(model) as calls:
            with pytest.raises(error, match=match):
                answers(model, given, **more)
            assert calls.count == 0
        assert state_of(model) == attached
        assert session.report is None
        if held is not None:
            assert all(one is other for one, other in zip(cache.layers, held[0]))
            assert same_contents(contents(cache), held[1])
        answers(model, ONE)
        assert len(session.reports) == 1
    assert state_of(model) == before


SETTINGS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "static": ({"cache_implementation": "static"}, tp.UnsupportedCacheError, "cache_implementation='static'"),
    "offloaded static": ({"cache_implementation": "offloaded_static"}, tp.UnsupportedCacheError, "offloaded_static"),
    "quantised": ({"cache_implementation": "quantized"}, tp.UnsupportedCacheError, "'quantized' cannot be pruned"),
    "paged": ({"cache_implementation": "paged"}, tp.UnsupportedCacheError, "'paged' cannot be pruned"),
    "prompt lookup": ({"prompt_lookup_num_tokens": 2}, tp.UnsupportedModeError, "prompt_lookup_num_tokens"),
    "early exit": ({"assistant_early_exit": 1}, tp.UnsupportedModeError, "assistant_early_exit"),
    "mtp": ({"use_mtp": True}, tp.UnsupportedModeError, "use_mtp|assisted"),
    "chunks": ({"prefill_chunk_size": 4}, tp.UnsupportedModeError, "prefill_chunk_size"),
    "contrastive": ({"penalty_alpha": 0.6, "top_k": 4}, tp.UnsupportedModeError, "contrastive_search"),
    "dola": ({"dola_layers": "high"}, tp.UnsupportedModeError, "dola_generation"),
    "group beams": ({"num_beams": 4, "num_beam_groups": 2}, tp.UnsupportedModeError, "group_beam_search"),
    "forced words": ({"num_beams": 2, "force_words_ids": [[5]]}, tp.UnsupportedModeError, "constrained_beam_search"),
    "token healing": ({"token_healing": True}, tp.UnsupportedModeError, "token_healing"),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("by", ["argument", "config"])
def test_refused_generation_settings(name: str, by: str) -> None:
    settings, error, match = SETTINGS[name]
    if by == "argument":
        return refused(match, error, **settings)
    config = GenerationConfig()
    for key, value in settings.items():
        setattr(config, key, value)
    refused(match, error, generation_config=config)


def test_settings_of_the_model_count_and_arguments_overrule_them() -> None:
    model = tiny_model(layers=2)
    model.generation_config.prefill_chunk_size = 4
    with tp.attach(model, PIPE) as session:
        with pytest.raises(tp.UnsupportedModeError, match="prefill_chunk_size"):
            answers(model, ONE)
        with pytest.raises(tp.UnsupportedModeError, match="prefill_chunk_size"):  # None leaves it to the model
            answers(model, ONE, generation_config=GenerationConfig(prefill_chunk_size=None))
        assert session.report is None
        model.generation_config.prefill_chunk_size = None
        model.generation_config.num_beams = 3
        answers(model, ONE)
        assert session.report.expanded == 3
        answers(model, ONE, generation_config=GenerationConfig(num_beams=2))
        assert session.report.expanded == 2
        answers(model, ONE, num_beams=1)
        assert session.report.expanded == 1


def test_refused_arguments() -> None:
    model = shared_model()
    embeds = model.get_input_embeddings()(ONE.ids).detach()
    refused("assistant_model", assistant_model=tiny_model(layers=1))
    refused("custom_generate", custom_generate=lambda *args, **kwargs: None)
    refused("labels", labels=ONE.ids)
    refused("logits_to_keep", logits_to_keep=torch.tensor([3]))
    refused("inputs_embeds", inputs_embeds=embeds)
    text = model.config.get_text_config()
    refused("StaticCache", tp.UnsupportedCacheError, **{CACHE: StaticCache(config=text, max_cache_len=64)})


def test_refused_by_position() -> None:
    """``assistant_model`` is the seventh argument of ``generate``, ``labels`` the sixth of the forward."""
    model = shared_model()
    with tp.attach(model, PIPE), counted(model) as calls:
        with pytest.raises(tp.UnsupportedModeError, match="assistant_model"):
            model.generate(ONE.ids, None, None, None, None, None, tiny_model(layers=1))
        with pytest.raises(tp.UnsupportedModeError, match="prefill_chunk_size"):
            model.generate(ONE.ids, GenerationConfig(prefill_chunk_size=4))
        with pytest.raises(tp.UnsupportedModeError, match="labels"):
            model(ONE.ids, ONE.mask, None, None, None, ONE.ids)
        assert calls.count == 0


def test_refused_continuous_batching() -> None:
    model = shared_model()
    with tp.attach(model, PIPE):
        for name in ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager"):
            with pytest.raises(tp.UnsupportedModeError, match=f"{name}.*continuous batching"):
                getattr(model, name)(inputs=[[1, 2]])
    assert "generate_batch" not in model.__dict__


FORWARDS: dict[str, tuple[dict[str, Any], str]] = {
    "labels": ({"labels": ONE.ids}, "labels"),
    "logits to keep": ({"logits_to_keep": torch.tensor([0])}, "logits_to_keep"),
    "embeds beside pixels": ({"input_ids": None, "inputs_embeds": torch.zeros(1, ONE.length, 32)}, "inputs_embeds"),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_refused_forwards(name: str) -> None:
    more, match = FORWARDS[name]
    model = shared_model()
    with tp.attach(model, PIPE) as session, counted(model) as calls:
        with pytest.raises(tp.UnsupportedModeError, match=match):
            model(**ONE.inputs() | more)
        assert calls.count == 0
        assert session.report is None


def decoder_refuses(match: str, error: type[Exception] = tp.UnsupportedModeError, **inputs: Any) -> None:
    """What only shows once the prompt is laid out is refused before the first decoder layer, the cache untouched."""
    model, cache = shared_model(), inputs.pop(CACHE, None)
    cache = DynamicCache() if cache is None else cache
    held = contents(cache)
    ran: list[Any] = []
    with tp.attach(model, PIPE) as session:
        before = len(session.reports)
        handle = model.model.language_model.layers[0].register_forward_pre_hook(lambda *args: ran.append(args))
        try:
            with pytest.raises(error, match=match):
                model(**inputs, **{CACHE: cache})
        finally:
            handle.remove()
        assert not ran
        assert same_contents(contents(cache), held) or (cache.get_seq_length() == 0 and not held)
        assert len(session.reports) == before
        answers(model, ONE)


def test_refused_embeds_with_visual_tokens() -> None:
    """Without ids nobody knows where the visual tokens are, but their positions give them away."""
    embeds = shared_model().get_input_embeddings()(ONE.ids).detach()
    decoder_refuses("inputs_embeds with visual", inputs_embeds=embeds, position_ids=ONE.positions(shared_model()))


def test_embeds_of_text_work() -> None:
    model, ids = shared_model(), torch.tensor([[4, 5, 6]])
    embeds = model.get_input_embeddings()(ids).detach()
    plain = model(inputs_embeds=embeds).logits
    with tp.attach(model, PIPE):
        assert torch.equal(model(inputs_embeds=embeds).logits, plain)


def test_refused_without_mrope_positions() -> None:
    decoder_refuses("mm_token_type_ids", **{n: v for n, v in ONE.inputs().items() if n != "mm_token_type_ids"})


def test_refused_4d_masks() -> None:
    mask = torch.ones(1, 1, ONE.length, ONE.length, dtype=torch.bool).tril()
    positions = ONE.positions(shared_model())
    decoder_refuses("2-D attention_mask", **ONE.inputs() | {"attention_mask": mask, "position_ids": positions})


def test_refused_video_without_a_question() -> None:
    ids = ONE.ids[:, : ONE.clips[0][0].column + 18]
    cut = Prompt(ids, torch.ones_like(ids), ONE.clips, [(0, ids.shape[1])])
    decoder_refuses("no text after its last visual token", **cut.inputs())
    model = shared_model()
    with tp.attach(model, tp.Pipeline([tp.STMerge(keep_ratio=0.5)])) as session:  # nothing is scored
        model(**cut.inputs())
        assert session.report.visual_retained == [0.5]


def test_refused_content_scores_on_a_continued_cache() -> None:
    model = shared_model()
    talk = ONE.then([[3, Clip(2, 2, 2), 4]])
    content = tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=0.5, scorer="content")])
    with tp.attach(model, content) as session:
        cache = cache_of(model(**ONE.inputs()))
        held = contents(cache)
        more = talk.inputs(since=ONE.length) | {"position_ids": talk.positions(model)[:, :, ONE.length :]}
        with pytest.raises(tp.UnsupportedModeError, match="ContentScore reads keys before RoPE"):
            model(**more, **{CACHE: cache})
        assert same_contents(contents(cache), held)
        assert len(session.reports) == 1
    with tp.attach(model, tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=0.5)])) as session:
        model(**more, **{CACHE: cache})
        assert session.report.visual_tokens == [8]


def test_refused_training() -> None:
    model = tiny_model(layers=2).train()
    with tp.attach(model, PIPE) as session, counted(model) as calls:
        for run_it in (model, model.model):
            with pytest.raises(tp.UnsupportedModeError, match=r"model\.eval\(\)"):
                run_it(**ONE.inputs())
        assert calls.count == 0
        with torch.no_grad():
            model(**ONE.inputs())
        assert len(session.reports) == 1


def test_refused_replicas() -> None:
    """What ``nn.DataParallel`` runs, made on the CPU."""
    model = shared_model()
    with tp.attach(model, PIPE), counted(model) as calls:
        replica = model._replicate_for_data_parallel()
        replica._modules, replica._parameters, replica._buffers = model._modules, model._parameters, model._buffers
        with pytest.raises(tp.UnsupportedModeError, match="DataParallel"):
            replica(**ONE.inputs())
        assert calls.count == 0


def test_refused_compiling_while_attached() -> None:
    model = tiny_model(layers=2)
    with tp.attach(model, PIPE) as session:
        compiled = torch.compile(model, backend="eager")
        with pytest.raises(tp.UnsupportedModeError, match=r"torch\.compile"):
            compiled(**ONE.inputs())
        model.compile(backend="eager")
        with pytest.raises(tp.UnsupportedModeError, match=r"torch\.compile"):
            answers(model, ONE)
        assert session.report is None


# --- an empty pipeline only watches ----------------------------------------------------------------------------------

WATCHED: dict[str, dict[str, Any]] = {
    "plain": {},
    "static": {"cache_implementation": "static"},
    "prompt lookup": {"prompt_lookup_num_tokens": 2},
    "no token types": {"mm_token_type_ids": None},
    "no cache": {"use_cache": False},
}


@pytest.mark.parametrize("name", WATCHED)
def test_an_empty_pipeline_refuses_nothing(name: str) -> None:
    model = shared_model()
    more = copy.deepcopy(WATCHED[name])
    plain = answers(model, ONE, **more)
    with tp.attach(model, tp.Pipeline([])) as session:
        if name == "no token types":
            with pytest.warns(tp.TokenPruneWarning, match="no report"):
                assert answers(model, ONE, **more) == plain
            assert session.report is None
            return
        assert answers(model, ONE, **more) == plain
        assert session.reports[0].visual_retained == [1.0]
        assert session.reports[0].kept[0].tolist() == list(range(ONE.length))


def test_an_empty_pipeline_may_train() -> None:
    model = tiny_model(layers=2).train()
    given = ONE.inputs() | {"labels": ONE.ids}
    plain = model(**given).loss
    with tp.attach(model, tp.Pipeline([])):
        assert torch.equal(model(**given).loss, plain)
