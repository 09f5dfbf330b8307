"""Small random KOSMOS-2.5 checkpoints become GGUF files; what is wrong is named; sizes and types at full size."""

import collections
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.kosmos2_5_checkpoint import (
    FULL_SIZES,
    GENERATION,
    SIZES,
    TAGS,
    TOKENIZER_CONFIG,
    PageVocabulary,
    State,
    config,
    preprocessor,
    random_state,
    shapes,
    write_hf,
    write_json,
)
from PIL import Image

import kosmos_edge
from kosmos_edge import _core, cli
from kosmos_edge.convert import convert, requantize, verify
from kosmos_edge.convert.models import MODELS, find_model
from kosmos_edge.convert.models.kosmos2_5 import Config, tensor_table
from kosmos_edge.convert.recipe import choose_type, estimate, find_recipe
from kosmos_edge.errors import KosmosError, ModelCorrupt

# name of the parent in config.json -> its section
EMBEDDING, HEAD = "text_model.model.embed_tokens.weight", "text_model.lm_head.weight"
VOCABULARY = PageVocabulary()
ROWS = len(VOCABULARY.pieces)


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(ROWS)


@pytest.fixture(scope="module")
def checkpoint(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf(tmp_path_factory.mktemp("hf"), VOCABULARY, state)


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """-> (metadata without what tells of the source's files, tensors)"""
    file = _core.GgufFile(str(path))
    metadata = {key: value for key, value in file.metadata().items() if not key.endswith("source.sha256")}
    return metadata, {name: (dtype, tuple(shape), file.tensor_data(name)) for name, dtype, shape, *_ in file.tensors()}


NAMES = {
    "token_embd.weight": EMBEDDING,
    "segment_embd.weight": "text_model.model.segment_emb.weight",
    "blk.1.attn_q.weight": "text_model.model.layers.1.self_attn.q_proj.weight",
    "blk.0.attn_k.bias": "text_model.model.layers.0.self_attn.k_proj.bias",
    "blk.1.attn_output.weight": "text_model.model.layers.1.self_attn.out_proj.weight",
    "blk.0.attn_norm.weight": "text_model.model.layers.0.self_attn_layer_norm.weight",
    "blk.0.ffn_norm.bias": "text_model.model.layers.0.final_layer_norm.bias",
    "blk.1.ffn_up.weight": "text_model.model.layers.1.ffn.fc1.weight",
    "blk.1.ffn_sub_norm.weight": "text_model.model.layers.1.ffn.ffn_layernorm.weight",
    "blk.0.ffn_down.weight": "text_model.model.layers.0.ffn.fc2.weight",
    "output_norm.weight": "text_model.model.layer_norm.weight",
    "v.patch_embd.weight": "vision_model.embeddings.patch_projection.weight",
    "v.patch_embd.bias": "vision_model.embeddings.patch_projection.bias",
    "v.row_embd.weight": "vision_model.embeddings.row_embedder.weight",
    "v.col_embd.weight": "vision_model.embeddings.column_embedder.weight",
    "v.blk.1.ln1.weight": "vision_model.encoder.layer.1.pre_attention_layer_norm.weight",
    "v.blk.0.attn_q.weight": "vision_model.encoder.layer.0.attention.query.weight",
    "v.blk.1.attn_out.weight": "vision_model.encoder.layer.1.attention.output.weight",
    "v.blk.1.ln2.weight": "vision_model.encoder.layer.1.pre_mlp_layer_norm.weight",
    "v.blk.0.ffn_gate.weight": "vision_model.encoder.layer.0.mlp.wi_0.weight",
    "v.blk.0.ffn_up.weight": "vision_model.encoder.layer.0.mlp.wi_1.weight",
    "v.blk.1.ffn_down.weight": "vision_model.encoder.layer.1.mlp.wo.weight",
    "v.post_ln.weight": "vision_model.layernorm.weight",
    "mm.latent_query": "image_to_text_projection.latent_query",
    "mm.dense.weight": "image_to_text_projection.dense.weight",
    "mm.attn_out.bias": "image_to_text_projection.x_attn.out_proj.bias",
}


def test_the_file_holds_every_value(checkpoint: Path, state: State, tmp_path: Path) -> None:
    path = convert(checkpoint, tmp_path / "a.gguf", type="f32").output
    _, tensors = contents(path)
    for name, source in NAMES.items():
        assert tensors[name] == ("F32", *state[source]), name
    assert len(tensors) == len(state) and verify(path) == []


def test_the_keys_are_what_the_engine_reads(checkpoint: Path, tmp_path: Path) -> None:
    metadata, _ = contents(convert(checkpoint, tmp_path / "a.gguf", type="f32").output)
    own = {key.removeprefix("kosmos2_5."): value for key, value in metadata.items() if key.startswith("kosmos2_5.")}
    expected = {
        "context_length": 256, "embedding_length": 64, "block_count": 2, "feed_forward_length": 96,
        "attention.head_count": 4, "vocab_size": ROWS, "image_token_count": 6, "first_slot_token_id": 0,
        "vision.max_patches": 40, "generation.max_new_tokens": 128,
        "generation.no_repeat_ngram_size": 0,  # lines of a page do repeat, whatever the checkpoint says
    }  # fmt: skip
    assert {key: own[key] for key in expected} == expected
    prompts = {key: text for key, text in own.items() if key.startswith("prompt.")}
    assert prompts == {"prompt.read": "<ocr>", "prompt.markdown": "<md>"}  # no questions: it is not the chat model
    assert metadata["general.architecture"] == metadata["clip.projector_type"] == "kosmos2_5"
    assert (metadata["clip.vision.patch_size"], metadata["clip.vision.attention.head_count"]) == (4, 3)
    assert metadata["clip.vision.attention.layer_norm_epsilon"] == pytest.approx(1e-6)
    assert (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]) == ("gpt2", "dbrx")
    assert metadata["tokenizer.ggml.tokens"] == VOCABULARY.pieces
    assert metadata["tokenizer.ggml.token_type"] == VOCABULARY.types
    assert metadata["tokenizer.ggml.merges"] == VOCABULARY.merges


def test_a_file_of_a_short_context_answers_without_a_length(checkpoint: Path, tmp_path: Path) -> None:
    model = kosmos_edge.load(convert(checkpoint, tmp_path / "a.gguf", type="f32").output, threads=1)
    assert model.generate([Image.new("RGB", (9, 9)), "<ocr>"], raw=True).timings.prompt_tokens == 10


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_weights_of_half_precision(dtype: str, state: State, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "m", VOCABULARY, state, dtype=dtype)
    _, tensors = contents(convert(folder, tmp_path / "a.gguf", type="f16").output)
    assert tensors["blk.0.ffn_up.weight"][0] == "F16" and tensors["v.row_embd.weight"][0] == "F32"


# ---- the head, which is the embedding


def test_a_head_is_left_out_where_it_is_the_embedding(checkpoint: Path, state: State, tmp_path: Path) -> None:
    _, without = contents(convert(checkpoint, tmp_path / "a.gguf", type="q8_0").output)
    both = write_hf(tmp_path / "both", VOCABULARY, state | {HEAD: state[EMBEDDING]})
    assert contents(convert(both, tmp_path / "b.gguf", type="q8_0").output)[1] == without
    assert "output.weight" not in without


def test_a_head_of_its_own_is_refused(state: State, tmp_path: Path) -> None:
    other = (state[EMBEDDING][0], bytes(len(state[EMBEDDING][1])))
    folder = write_hf(tmp_path / "m", VOCABULARY, state | {HEAD: other})
    with pytest.raises(ModelCorrupt, match=r"lm_head.weight differs from the embedding"):
        convert(folder, tmp_path / "a.gguf")


# ---- tensors


ROW_TABLE = "vision_model.embeddings.row_embedder.weight"
SHORT = ((2, 40), bytes(320))
BAD_TENSORS: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (lambda s: {k: v for k, v in s.items() if k != ROW_TABLE}, r"row_embedder.weight \(40, 48\) is missing"),
    "of another shape": (lambda s: s | {ROW_TABLE: SHORT}, r"has the shape \(2, 40\), expected \(40, 48\)"),
    "not of the model": (lambda s: s | {"vision_model.encoder.layer.2.x": SHORT}, r"layer.2.x .* is not a tensor of"),
    "of KOSMOS-2": (
        lambda s: s | {"text_model.model.layers.0.self_attn.inner_attn_ln.weight": ((64,), bytes(256))},
        r"inner_attn_ln.weight \(64,\) is not a tensor of KOSMOS-2.5",
    ),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_tensors_that_do_not_fit_are_named(case: str, state: State, tmp_path: Path) -> None:
    change, message = BAD_TENSORS[case]
    folder = write_hf(tmp_path / "m", VOCABULARY, change(state))
    with pytest.raises(ModelCorrupt, match=message):
        convert(folder, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_tables_that_are_computed_are_left_out(checkpoint: Path, state: State, tmp_path: Path) -> None:
    more = {
        "text_model.model.embed_positions.weights": ((4, 64), bytes(1024)),
        "vision_model.embeddings.position_ids": ((4,), bytes(16)),
    }
    folder = write_hf(tmp_path / "m", VOCABULARY, state | more)
    _, tensors = contents(convert(folder, tmp_path / "a.gguf", type="f32").output)
    assert tensors == contents(convert(checkpoint, tmp_path / "b.gguf", type="f32").output)[1]


# ---- settings


BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"text_config": 3}, "text_config is 3, expected an object"),
    ({"text_config__activation_function": "relu"}, "text_config.activation_function is 'relu'; only 'gelu'"),
    ({"text_config__scale_embedding": False}, "scale_embedding is False; only True"),
    ({"text_config__add_cross_attention": True}, "add_cross_attention is True; only False"),
    ({"text_config__bos_token_id": 2}, "bos_token_id is 2; only 0"),
    ({"text_config__pad_token_id": False}, "pad_token_id is False; only 1"),
    ({"text_config__eos_token_id": 5}, "eos_token_id is 5; only 2"),
    ({"vision_config__dense_act_fn": "gelu"}, "dense_act_fn is 'gelu'; only 'gelu_new'"),
    ({"latent_query_num": 0}, "latent_query_num is 0, expected 1.."),
    ({"text_config__embed_dim": "64"}, "embed_dim is '64', expected 1.."),
    ({"text_config__layers": True}, "layers is True, expected 1.."),
    ({"text_config__layers": 1001}, "1001 and 2 layers, expected at most 1000"),
    ({"text_config__vocab_size": 1 << 30}, "vocab_size is 1073741824, expected 1.."),
    ({"text_config__layer_norm_eps": 0}, "text_config.layer_norm_eps is 0, expected a number in 0..1"),
    ({"vision_config__layer_norm_eps": "1e-6"}, "vision_config.layer_norm_eps is '1e-6', expected a number"),
    ({"text_config__attention_heads": 5}, "are no multiples of their numbers of heads 5 and 3"),
    ({"vision_config__head_dim": 64}, "head_dim 64 is not the width of a head"),
    ({"vision_config__patch_embed_hidden_size": 50}, r"patch_embed_hidden_size is 50, expected 3 \* side \* side"),
    ({"text_config__vocab_size": ROWS + 1}, "embed_tokens.weight has the shape"),
    ({"text_config__max_position_embeddings": 4}, r"context_length is 8; expected room for a picture's 6 tokens"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_SETTINGS, ids=[str(c) for c, _ in BAD_SETTINGS])
def test_settings_that_the_engine_cannot_run(
    changes: dict[str, Any], message: str, state: State, tmp_path: Path
) -> None:
    folder = write_hf(tmp_path / "m", VOCABULARY, state, **changes)
    with pytest.raises(KosmosError, match=message):
        _core.model_info(str(convert(folder, tmp_path / "a.gguf").output))


def test_old_settings_leave_out_what_the_class_has() -> None:
    found = find_model({"model_type": "kosmos-2.5"}).read_config({"model_type": "kosmos-2.5"})
    assert found == Config() and (found.context, found.patch_size) == (8192, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": {"height": 8, "width": 4}}, r"patch_size is .*; only .*'height': 4, 'width': 4"),
        ({"max_patches": 41}, "max_patches is 41; only 40"),
        ({"do_normalize": False}, "do_normalize is False; only True"),
    ],
)
def test_a_processor_that_the_engine_is_not(
    changes: dict[str, Any], message: str, state: State, tmp_path: Path
) -> None:
    folder = write_hf(tmp_path / "m", VOCABULARY, state)
    write_json(folder, preprocessor_config=preprocessor(SIZES["patch"], SIZES["max_patches"]) | changes)
    with pytest.raises(ModelCorrupt, match=rf"preprocessor_config.json: {message}"):
        convert(folder, tmp_path / "a.gguf")


def test_defaults_of_generation(state: State, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "m", VOCABULARY, state)
    write_json(folder, generation_config=GENERATION | {"max_new_tokens": 30})
    metadata, _ = contents(convert(folder, tmp_path / "a.gguf").output)
    assert metadata["kosmos2_5.generation.max_new_tokens"] == 30
    write_json(folder, generation_config=GENERATION | {"eos_token_id": 1})
    with pytest.raises(ModelCorrupt, match="eos_token_id is 1, expected 2"):
        convert(folder, tmp_path / "b.gguf")


# ---- vocabulary and prompts


def test_every_tag_of_the_model_is_needed(state: State, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "m", VOCABULARY, state)
    written = json.dumps(VOCABULARY.tokenizer_json())
    for tag in TAGS:
        (folder / "tokenizer.json").write_text(written.replace(f'"{tag}"', f'"{tag[:-1]}?>"'), encoding="utf-8")
        with pytest.raises(ModelCorrupt, match=f"the vocabulary lacks {tag}, tags of KOSMOS-2.5"):
            convert(folder, tmp_path / "a.gguf")


@pytest.mark.parametrize(("name", "text", "number"), [("bos", "<pad>", 1), ("eos", "<unk>", 3), ("pad", "</s>", 2)])
def test_special_tokens_have_their_ids(name: str, text: str, number: int, state: State, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "m", VOCABULARY, state)
    write_json(folder, tokenizer_config=TOKENIZER_CONFIG | {f"{name}_token": text})
    with pytest.raises(ModelCorrupt, match=f"{name}_token has the id {number}; expected"):
        convert(folder, tmp_path / "a.gguf")


def test_a_vocabulary_of_another_length(tmp_path: Path) -> None:
    rows = ROWS + 3
    folder = write_hf(tmp_path / "m", VOCABULARY, random_state(rows), text_config__vocab_size=rows)
    with pytest.raises(ModelCorrupt, match=f"the vocabulary has {ROWS} tokens, the embedding of .* {rows} rows"):
        convert(folder, tmp_path / "a.gguf")


def test_a_card_makes_it_a_chat_model(state: State, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "m", VOCABULARY, state)
    question = "<md>USER: {question} ASSISTANT:"
    write_json(folder, kosmos_edge={"name": "Tiny chat", "prompt": {"question": question}})
    path = convert(folder, tmp_path / "a.gguf").output
    metadata, _ = contents(path)
    assert (metadata["general.name"], metadata["kosmos2_5.prompt.question"]) == ("Tiny chat", question)
    assert "ask" in _core.model_info(str(path))["tasks"]
    write_json(folder, kosmos_edge={"prompt": {"caption": "An image of"}})
    with pytest.raises(ModelCorrupt, match="'prompt' has 'caption'; expected some of"):
        convert(folder, tmp_path / "b.gguf")


# ---- storage types


WIDE = {"width": 256, "ff": 256, "vision": 256, "vision_heads": 4, "vision_ff": 352, "layers": 3, "vision_layers": 1}


def test_stored_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of 352 values, as those of 3968 of the published size, are no whole K-blocks, but whole ones of 32."""
    folder = write_hf(tmp_path / "m", VOCABULARY, random_state(ROWS, **WIDE), **WIDE)
    report = convert(folder, tmp_path / "a.gguf", type="q4_k_m")
    types = {name: dtype for name, (dtype, *_) in contents(report.output)[1].items()}
    assert types["token_embd.weight"] == types["blk.2.ffn_down.weight"] == types["blk.2.attn_v.weight"] == "Q6_K"
    assert types["blk.2.attn_q.weight"] == types["blk.0.attn_v.weight"] == types["blk.1.ffn_down.weight"] == "Q4_K"
    assert types["v.blk.0.attn_q.weight"] == types["v.blk.0.ffn_gate.weight"] == "Q6_K"
    assert types["v.blk.0.ffn_down.weight"] == types["mm.dense.weight"] == "Q8_0"
    assert types["v.patch_embd.weight"] == "F16"
    for name in ("segment_embd.weight", "v.row_embd.weight", "v.col_embd.weight", "mm.latent_query"):
        assert types[name] == "F32"
    assert any("v.blk.0.ffn_down.weight: stored as Q8_0, its rows of 352 values" in text for text in report.fallbacks)
    whole = convert(folder, tmp_path / "f32.gguf", type="f32").output
    again = requantize(whole, tmp_path / "b.gguf", type="q4_k_m")
    assert contents(again.output) == contents(report.output) and verify(again.output) == []
    assert cli.run(["models", "verify", str(report.output)]) == 0
    assert ": ok" in capsys.readouterr().out
    model = kosmos_edge.load(report.output, threads=1)
    assert model.model_info["architecture"] == "kosmos2_5"
    assert model.generate([Image.new("RGB", (40, 30)), "<ocr>"], raw=True, max_tokens=3).token_ids


def full_size() -> list[tuple[str, tuple[int, ...]]]:
    return [(name, shape) for _, name, shape in tensor_table(Config())]


def test_full_size_counts() -> None:
    table = full_size()
    assert sum(math.prod(shape) for _, shape in table) == 1_374_646_272  # the published number of parameters
    assert estimate(table, "f32", 24) == 5_498_585_088
    theirs = {source: shape for source, _, shape in tensor_table(Config())}
    assert theirs == shapes(Config.vocab, **FULL_SIZES)
    assert MODELS["kosmos-2.5"].read_config(config(Config.vocab, **FULL_SIZES)) == Config()


def test_full_size_types_and_bytes() -> None:
    """The file of q4_k_m stays below 1.15 GB. It has some 5 MB of vocabulary beside the tensors."""
    table, recipe = full_size(), find_recipe("q4_k_m")
    types = collections.Counter(choose_type(recipe, name, shape, 24) for name, shape in table)
    assert types == {"F32": 337, "F16": 1, "Q4_K": 120, "Q6_K": 133, "Q8_0": 23}
    fallbacks = [name for name, shape in table if shape[-1] == 3968]
    assert len(fallbacks) == 18
    assert {choose_type(recipe, name, (1536, 3968), 24) for name in fallbacks} == {"Q8_0"}
    assert choose_type(recipe, "token_embd.weight", (108481, 1536), 24) == "Q6_K"  # it is the output matrix, too
    assert estimate(table, "q4_k_m", 24) == 1_072_478_700
    assert estimate(table, "q4_k_m", 24) + 6e6 <= 1.15e9
