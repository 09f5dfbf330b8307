"""The converter from end to end: every source gives the same file, and a wrong source gives an error that says what."""

import json
import math
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers.convert_checkpoint import (
    CHARSMAP,
    PIECES,
    SCORES,
    SIZES,
    TOKENS,
    convert_cast,
    convert_config,
    convert_safetensors_bytes,
    convert_shapes,
    convert_state,
    convert_write_bin,
    convert_write_fairseq,
    convert_write_hf,
    convert_write_settings,
)

from kosmos_edge import _core
from kosmos_edge.convert import RECIPES, convert, describe, verify
from kosmos_edge.convert.recipe import TYPES, choose_type, estimate, find_recipe, gets_more_bits
from kosmos_edge.errors import Cancelled, InvalidRequest, ModelCorrupt, ModelNotFound


@pytest.fixture(scope="module")
def state():
    return convert_state(seed=1)


@pytest.fixture(scope="module")
def hf(state, tmp_path_factory):
    return convert_write_hf(tmp_path_factory.mktemp("hf"), state)


def gguf(path):
    """-> (metadata, {name: (dtype, shape, bytes)})"""
    file = _core.GgufFile(str(path))
    tensors = {name: (dtype, tuple(shape), file.tensor_data(name)) for name, dtype, shape, *_ in file.tensors()}
    return file.metadata(), tensors


def without_provenance(path):
    """The file's bytes, with the hashes and names of its sources blanked."""
    metadata, tensors = gguf(path)
    metadata.pop("kosmos2.source.sha256")
    return metadata, tensors


# ---- what is in the file


def test_f32_file_holds_every_value_under_its_name(hf, state, tmp_path):
    report = convert(hf, tmp_path / "a.gguf", type="f32")
    _, tensors = gguf(report.output)
    assert len(tensors) == len(state)
    expected = {
        "token_embd.weight": "text_model.model.embed_tokens.weight",
        "blk.1.attn_q.weight": "text_model.model.layers.1.self_attn.q_proj.weight",
        "blk.1.attn_sub_norm.bias": "text_model.model.layers.1.self_attn.inner_attn_ln.bias",
        "blk.0.attn_norm.weight": "text_model.model.layers.0.self_attn_layer_norm.weight",
        "blk.0.attn_output.bias": "text_model.model.layers.0.self_attn.out_proj.bias",
        "blk.0.ffn_norm.weight": "text_model.model.layers.0.final_layer_norm.weight",
        "blk.0.ffn_up.weight": "text_model.model.layers.0.ffn.fc1.weight",
        "blk.0.ffn_sub_norm.weight": "text_model.model.layers.0.ffn.ffn_layernorm.weight",
        "blk.0.ffn_down.weight": "text_model.model.layers.0.ffn.fc2.weight",
        "output_norm.bias": "text_model.model.layer_norm.bias",
        "v.class_embd": "vision_model.model.embeddings.class_embedding",
        "v.patch_embd.weight": "vision_model.model.embeddings.patch_embedding.weight",
        "v.position_embd.weight": "vision_model.model.embeddings.position_embedding.weight",
        "v.pre_ln.weight": "vision_model.model.pre_layrnorm.weight",
        "v.post_ln.bias": "vision_model.model.post_layernorm.bias",
        "v.blk.1.ln1.weight": "vision_model.model.encoder.layers.1.layer_norm1.weight",
        "v.blk.1.ln2.weight": "vision_model.model.encoder.layers.1.layer_norm2.weight",
        "v.blk.0.attn_out.weight": "vision_model.model.encoder.layers.0.self_attn.out_proj.weight",
        "v.blk.0.ffn_up.weight": "vision_model.model.encoder.layers.0.mlp.fc1.weight",
        "v.blk.0.ffn_down.weight": "vision_model.model.encoder.layers.0.mlp.fc2.weight",
        "mm.latent_query": "image_to_text_projection.latent_query",
        "mm.dense.weight": "image_to_text_projection.dense.weight",
        "mm.attn_k.weight": "image_to_text_projection.x_attn.k_proj.weight",
        "mm.attn_out.bias": "image_to_text_projection.x_attn.out_proj.bias",
    }
    for name, source in expected.items():
        assert tensors[name] == ("F32", *state[source]), name
    # every source tensor is there exactly once
    assert sorted(data for _, _, data in tensors.values()) == sorted(data for _, data in state.values())


def test_metadata_is_what_the_engine_needs(hf, tmp_path):
    report = convert(hf, tmp_path / "a.gguf")
    metadata, _ = gguf(report.output)
    assert metadata["general.architecture"] == "kosmos2"
    assert metadata["general.file_type"] == 15
    assert metadata["general.alignment"] == 64
    assert metadata["general.size_label"] == "2.8M"
    assert metadata["kosmos2.embedding_length"] == SIZES["width"]
    assert metadata["kosmos2.image_token_count"] == SIZES["latents"]
    assert metadata["kosmos2.location_bins"] == 32
    assert metadata["kosmos2.generation.no_repeat_ngram_size"] == 3
    assert metadata["kosmos2.generation.max_new_tokens"] == 128
    assert metadata["kosmos2.prompt.question"] == "Question: {question} Answer:"
    assert "kosmos2.notice" not in metadata
    assert metadata["clip.use_gelu"] is False
    assert metadata["clip.vision.image_size"] == 56
    assert metadata["clip.vision.image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert metadata["tokenizer.ggml.tokens"] == TOKENS
    assert metadata["tokenizer.ggml.scores"] == [struct.unpack("f", struct.pack("f", s))[0] for s in SCORES]
    types = metadata["tokenizer.ggml.token_type"]
    assert types[:4] == [3, 3, 3, 2]
    assert types[4 : 4 + len(PIECES)] == [1] * len(PIECES)
    assert types[4 + len(PIECES) :] == [5] + [4] * (11 + 1024)
    assert bytes(metadata["tokenizer.ggml.precompiled_charsmap"]) == CHARSMAP
    assert _core.model_info(str(report.output))
    names = [entry.split(":")[0] for entry in metadata["kosmos2.source.sha256"]]
    assert set(names) == {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
    }


def test_source_hashes_are_those_of_the_files(hf, tmp_path):
    import hashlib

    report = convert(hf, tmp_path / "a.gguf", type="q8_0")
    metadata, _ = gguf(report.output)
    assert report.sha256 == metadata["kosmos2.source.sha256"]
    for entry in report.sha256:
        name, digest = entry.split(":")
        assert hashlib.sha256((hf / name).read_bytes()).hexdigest() == digest, name


def test_the_gguf_package_reads_the_file(hf, state, tmp_path):
    gguf_package = pytest.importorskip("gguf")
    report = convert(hf, tmp_path / "a.gguf", type="f16")
    reader = gguf_package.GGUFReader(report.output)
    assert {t.name: tuple(map(int, t.shape)) for t in reader.tensors}["blk.0.ffn_up.weight"] == (256, 512)
    assert all(t.data_offset % 64 == 0 for t in reader.tensors)
    assert reader.fields["tokenizer.ggml.tokens"].contents()[10] == TOKENS[10]


# ---- every source, one result


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_all_sources_give_the_same_file(state, tmp_path, dtype):
    a = convert(convert_write_hf(tmp_path / "a", state, dtype), tmp_path / "a.gguf").output
    b = convert(convert_write_bin(tmp_path / "b", state, dtype), tmp_path / "b.gguf").output
    c = convert(convert_write_fairseq(tmp_path / "c", state, dtype), tmp_path / "c.gguf").output
    assert without_provenance(a) == without_provenance(b) == without_provenance(c)


def test_a_file_may_be_named_instead_of_its_folder(hf, state, tmp_path):
    folder = convert(hf, tmp_path / "a.gguf").output
    assert convert(hf / "model.safetensors", tmp_path / "b.gguf").output.read_bytes() == folder.read_bytes()
    unilm = convert_write_fairseq(tmp_path / "pt", state, name="any name.bin")
    by_content = convert(unilm / "any name.bin", tmp_path / "c.gguf").output
    assert without_provenance(by_content) == without_provenance(folder)


def test_tokenizer_from_elsewhere(state, tmp_path):
    unilm = convert_write_fairseq(tmp_path / "pt", state)
    elsewhere = tmp_path / "vocabulary"
    elsewhere.mkdir()
    (unilm / "sentencepiece.bpe.model").rename(elsewhere / "sentencepiece.bpe.model")
    (unilm / "dict.txt").rename(elsewhere / "dict.txt")
    with pytest.raises(ModelNotFound, match="sentencepiece"):
        convert(unilm, tmp_path / "a.gguf")
    a = convert(unilm, tmp_path / "a.gguf", tokenizer=elsewhere).output
    b = convert(unilm, tmp_path / "b.gguf", tokenizer=elsewhere / "sentencepiece.bpe.model").output
    assert a.read_bytes() == b.read_bytes()


def write_shards(folder, state, index="model.safetensors.index.json"):
    convert_write_settings(folder)
    names = list(state)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        (folder / file).write_bytes(convert_safetensors_bytes({name: state[name] for name in part}))
        weight_map |= dict.fromkeys(part, file)
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return weight_map


def test_shards(hf, state, tmp_path):
    write_shards(tmp_path / "shards", state)
    a = convert(tmp_path / "shards", tmp_path / "a.gguf").output
    b = convert(hf, tmp_path / "b.gguf").output
    assert without_provenance(a) == without_provenance(b)


def test_shard_index_that_does_not_fit_its_files(state, tmp_path):
    folder = tmp_path / "shards"
    weight_map = write_shards(folder, state)
    index = folder / "model.safetensors.index.json"
    names = list(weight_map)
    index.write_text(json.dumps({"weight_map": {**weight_map, names[0]: weight_map[names[-1]]}}))
    with pytest.raises(ModelCorrupt, match="does not have it"):
        convert(folder, tmp_path / "a.gguf")
    index.write_text(json.dumps({"weight_map": {k: v for k, v in weight_map.items() if k != names[5]}}))
    with pytest.raises(ModelCorrupt, match="not in the index"):
        convert(folder, tmp_path / "a.gguf")


# ---- determinism and integrity


def test_same_input_same_bytes(hf, tmp_path):
    a = convert(hf, tmp_path / "a.gguf").output.read_bytes()
    for i in range(3):
        assert convert(hf, tmp_path / f"{i}.gguf").output.read_bytes() == a


def test_bytes_do_not_depend_on_chunks_and_threads(hf, tmp_path, monkeypatch):
    from kosmos_edge.convert import writer

    a = convert(hf, tmp_path / "a.gguf").output.read_bytes()
    monkeypatch.setattr(writer, "CHUNK_BYTES", 5000)
    monkeypatch.setattr(writer, "WORKERS", 7)
    assert convert(hf, tmp_path / "b.gguf").output.read_bytes() == a


def test_verify_finds_every_flipped_bit(hf, tmp_path):
    path = convert(hf, tmp_path / "a.gguf").output
    assert verify(path) == []
    seen = []
    verify(path, progress=lambda done, total, name: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0
    good = path.read_bytes()
    for name, _, _, offset, nbytes in _core.GgufFile(str(path)).tensors():
        at = offset + nbytes // 2
        bad = bytearray(good)
        bad[at] ^= 1 << (nbytes % 8)
        path.write_bytes(bad)
        assert verify(path) == [name]


def test_verify_needs_checksums(hf, tmp_path):
    path = convert(hf, tmp_path / "a.gguf").output
    path.write_bytes(path.read_bytes().replace(b"kosmos2.checksum.sha256", b"kosmos2.checksum.sha512"))
    with pytest.raises(ModelCorrupt, match="no checksums"):
        verify(path)


def test_progress_and_report(hf, state, tmp_path):
    seen = []
    report = convert(hf, tmp_path / "a.gguf", progress=lambda *step: seen.append(step))
    total = sum(len(data) for _, data in state.values())
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert {t for _, t, _ in seen} == {total} and seen[-1][0] == total
    assert report.source_bytes == total
    assert report.output_bytes == report.output.stat().st_size
    assert sum(report.tensors.values()) == len(state)
    assert report.fallbacks == []
    assert describe(report)[0].startswith(str(report.output))


def test_cancel(hf, tmp_path):
    token = SimpleNamespace(cancelled=False)

    def progress(done, total, name):
        token.cancelled = True

    with pytest.raises(Cancelled):
        convert(hf, tmp_path / "a.gguf", progress=progress, cancel=token)
    assert list(tmp_path.iterdir()) == []


# ---- recipes


def test_types_of_the_codec_are_those_of_the_recipes():
    known = _core.dtypes()
    for name, row in TYPES.items():
        assert tuple(known[name]) == row


@pytest.mark.parametrize("type", RECIPES)
def test_every_type(hf, state, tmp_path, type):
    report = convert(hf, tmp_path / "a.gguf", type=type)
    metadata, tensors = gguf(report.output)
    assert metadata["general.file_type"] == RECIPES[type].file_type
    for name, (dtype, shape, data) in tensors.items():
        vector = len(shape) == 1 or name in ("v.position_embd.weight", "mm.latent_query")
        if vector or type == "f32":
            assert dtype == "F32", name
        elif name == "v.patch_embd.weight":
            assert dtype == "F16"
        else:
            assert dtype != "F32", name
        # decoded values are near the source's: the right tensor went through the right encoder
        values = struct.unpack(f"<{math.prod(shape)}f", _core.dequantize(dtype, data, math.prod(shape)))
        assert max(map(abs, values)) <= {"Q2_K": 0.12, "Q3_K": 0.1}.get(dtype, 0.07), name
    size = estimate([(name, shape) for name, (_, shape, _) in tensors.items()], type, SIZES["layers"])
    assert size == sum(len(data) for _, _, data in tensors.values())


def test_values_survive_the_stored_type(hf, state, tmp_path):
    _, tensors = gguf(convert(hf, tmp_path / "a.gguf", type="q4_k_m").output)
    source = struct.unpack("<131072f", state["text_model.model.layers.0.ffn.fc1.weight"][1])
    dtype, _, data = tensors["blk.0.ffn_up.weight"]
    stored = struct.unpack("<131072f", _core.dequantize(dtype, data, 131072))
    error = math.sqrt(sum((a - b) ** 2 for a, b in zip(source, stored, strict=True)) / 131072)
    spread = math.sqrt(sum(a * a for a in source) / 131072)
    assert 0 < error < 0.1 * spread  # 4 bits of a uniform distribution


def full_size_shapes():
    from kosmos_edge.convert.models.kosmos2 import Config, tensor_table

    return [(name, shape) for _, name, shape in tensor_table(Config())]


def test_full_size_counts_and_sizes():
    shapes = full_size_shapes()
    assert sum(math.prod(shape) for _, shape in shapes) == 1_664_485_376  # the published number of parameters
    assert len(shapes) == 885
    assert estimate(shapes, "f32", 24) == 6_657_941_504
    assert 1.05e9 < estimate(shapes, "q4_k_m", 24) + 2.5e6 <= 1.15e9
    order = ["f32", "f16", "q8_0", "q6_k", "q5_k", "q4_k_m", "iq4_xs", "q3_k_m", "q2_k"]
    sizes = [estimate(shapes, type, 24) for type in order]
    assert sizes == sorted(sizes, reverse=True)


def test_q4_k_m_gives_more_bits_where_llama_cpp_does():
    more = [layer for layer in range(24) if gets_more_bits(layer, 24)]
    assert more == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
    recipe = find_recipe("Q4_K_M")
    assert choose_type(recipe, "blk.3.attn_v.weight", (2048, 2048), 24) == "Q4_K"
    assert choose_type(recipe, "blk.2.attn_v.weight", (2048, 2048), 24) == "Q6_K"
    assert choose_type(recipe, "blk.2.ffn_down.weight", (2048, 8192), 24) == "Q6_K"
    assert choose_type(recipe, "blk.2.attn_q.weight", (2048, 2048), 24) == "Q4_K"
    assert choose_type(recipe, "token_embd.weight", (65037, 2048), 24) == "Q6_K"
    assert choose_type(recipe, "v.blk.0.attn_v.weight", (1024, 1024), 24) == "Q6_K"
    assert choose_type(recipe, "mm.dense.weight", (2048, 1024), 24) == "Q8_0"
    assert choose_type(recipe, "v.patch_embd.weight", (1024, 3, 14, 14), 24) == "F16"


def test_q3_k_m_reads_at_most_78_percent_of_q4_k_ms_bytes():
    recipe = find_recipe("q3_k_m")
    assert choose_type(recipe, "blk.3.attn_v.weight", (2048, 2048), 24) == "Q3_K"
    assert choose_type(recipe, "blk.2.ffn_down.weight", (2048, 8192), 24) == "Q4_K"
    assert choose_type(recipe, "token_embd.weight", (65037, 2048), 24) == "Q6_K"
    assert choose_type(recipe, "v.blk.0.attn_v.weight", (1024, 1024), 24) == "Q6_K"
    token = [
        (name, shape) for name, shape in full_size_shapes() if name.startswith("blk.") or name == "token_embd.weight"
    ]
    layers = [(name, shape) for name, shape in token if name.startswith("blk.")]
    assert estimate(token, "q3_k_m", 24) <= 0.78 * estimate(token, "q4_k_m", 24)
    assert estimate(layers, "q3_k_m", 24) * 8 <= 3.7 * sum(math.prod(shape) for _, shape in layers)


def test_rows_that_do_not_fit_fall_back_and_are_said(tmp_path):
    sizes = {"width": 192, "ff": 320, "vision": 72, "vision_ff": 64, "layers": 1, "vision_layers": 1}
    state = convert_state(seed=2, **sizes)
    changes = {
        "text_config__embed_dim": 192,
        "text_config__ffn_dim": 320,
        "text_config__layers": 1,
        "vision_config__hidden_size": 72,
        "vision_config__num_attention_heads": 3,
        "vision_config__intermediate_size": 64,
        "vision_config__num_hidden_layers": 1,
    }
    folder = convert_write_hf(tmp_path / "hf", state, **changes)
    report = convert(folder, tmp_path / "a.gguf")
    _, tensors = gguf(report.output)
    assert tensors["blk.0.attn_q.weight"][0] == "Q8_0"
    assert tensors["v.blk.0.attn_q.weight"][0] == "F16"
    assert tensors["mm.dense.weight"][0] == "F16"
    assert any("blk.0.attn_q.weight: stored as Q8_0" in text and "192" in text for text in report.fallbacks)
    assert len(report.fallbacks) == sum(tensors[t.split(":")[0]][0] in ("Q8_0", "F16") for t in report.fallbacks)


def test_unknown_type(hf, tmp_path):
    with pytest.raises(InvalidRequest, match=r"q3_k.*q4_k_m"):
        convert(hf, tmp_path / "a.gguf", type="q3_k")


# ---- wrong checkpoints


def fails(state, tmp_path, match, error=ModelCorrupt, files=None, **changes):
    folder = convert_write_hf(tmp_path / "hf", state, **changes)
    for name, content in (files or {}).items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(error, match=match) as caught:
        convert(folder, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    return str(caught.value)


def test_missing_extra_and_misshapen_tensors_are_all_listed(state, tmp_path):
    broken = dict(state)
    del broken["text_model.model.layers.1.ffn.fc1.bias"]
    broken["text_model.model.layers.0.adapter.weight"] = ((2,), bytes(8))
    shape, data = broken["image_to_text_projection.latent_query"]
    broken["image_to_text_projection.latent_query"] = (shape[::-1], data)
    text = fails(broken, tmp_path, "3 tensors")
    assert "text_model.model.layers.1.ffn.fc1.bias (512,) is missing" in text
    assert "text_model.model.layers.0.adapter.weight (2,) is not a tensor of KOSMOS-2" in text
    assert "image_to_text_projection.latent_query has the shape (256, 8), expected (8, 256)" in text


def test_ignored_buffers_and_a_tied_head(hf, state, tmp_path):
    more = dict(state)
    more["vision_model.model.embeddings.position_ids"] = ((1, 4), bytes(16))
    more["text_model.model.embed_positions.weights"] = ((2, 3), bytes(24))
    more["text_model.lm_head.weight"] = state["text_model.model.embed_tokens.weight"]
    a = convert(convert_write_hf(tmp_path / "hf", more), tmp_path / "a.gguf").output
    b = convert(hf, tmp_path / "b.gguf").output
    assert without_provenance(a) == without_provenance(b)


def test_a_head_of_its_own_is_refused(state, tmp_path):
    shape, data = state["text_model.model.embed_tokens.weight"]
    other = {**state, "text_model.lm_head.weight": (shape, data[:-4] + struct.pack("<f", 0.05))}
    fails(other, tmp_path, "tied")


def test_integers_and_wide_floats_are_refused(state, tmp_path):
    folder = convert_write_hf(tmp_path / "hf", state)
    raw = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header["text_model.model.layer_norm.bias"]["dtype"] = "I32"
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + raw[8 + size :])
    with pytest.raises(ModelCorrupt, match=r"layer_norm\.bias is I32"):
        convert(folder, tmp_path / "a.gguf")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(state, tmp_path, value):
    name = "text_model.model.layers.0.self_attn.q_proj.weight"
    shape, data = state[name]
    broken = {**state, name: (shape, data[:400] + struct.pack("<f", value) + data[404:])}
    text = fails(broken, tmp_path, "finite")
    assert name in text


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"model_type": "fuyu"},
            r"fuyu.*one of kosmos-1, kosmos-2, kosmos-2\.5, llava_qwen2, llava, blip2_t5, blip-2, instructblip_t5, ",
        ),
        ({"model_type": None}, "model_type"),
        ({"text_config": 3}, "text_config"),
        ({"latent_query_num": 0}, "latent_query_num"),
        ({"text_config__embed_dim": 10**30}, "embed_dim"),
        ({"text_config__embed_dim": "256"}, "embed_dim"),
        ({"text_config__layers": True}, "layers"),
        ({"text_config__layers": 3}, "layers.2.*missing"),
        ({"text_config__attention_heads": 5}, "heads"),
        ({"text_config__activation_function": "relu"}, "activation_function"),
        ({"text_config__scale_embedding": False}, "scale_embedding"),
        ({"text_config__eos_token_id": 5}, "eos_token_id"),
        ({"text_config__layer_norm_eps": -1.0}, "layer_norm_eps"),
        ({"vision_config__hidden_act": "gelu"}, "hidden_act"),
        ({"vision_config__image_size": 57}, "image_size"),
        ({"text_config__vocab_size": len(TOKENS) + 1}, "embed_tokens.weight has the shape"),
        ({"text_config__no_repeat_ngram_size": -1}, None),
    ],
)
def test_settings_that_the_engine_cannot_run(state, tmp_path, changes, match):
    if match is None:  # generation_config.json has the last word
        convert(convert_write_hf(tmp_path / "hf", state, **changes), tmp_path / "a.gguf")
    else:
        fails(state, tmp_path, match, **changes)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("config.json", "{", "not valid JSON"),
        ("config.json", "[]", "JSON object"),
        ("config.json", '{"a": 1, "a": 2}', "twice"),
        ("config.json", '{"a": NaN}', "NaN"),
        ("config.json", "[" * 100_000, "not valid JSON"),
        ("config.json", '{"a": ' + "1" * 10_000 + "}", "not valid JSON"),
        ("config.json", " " * (1 << 20) + "{}", "bytes; at most"),
        ("generation_config.json", {"no_repeat_ngram_size": "3"}, "no_repeat_ngram_size"),
        ("generation_config.json", {"eos_token_id": 7}, "eos_token_id"),
        ("preprocessor_config.json", {"resample": 2}, "resample"),
        ("preprocessor_config.json", {"image_mean": [0, 0]}, "image_mean"),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, "image_std"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 56}}, "size"),
        ("preprocessor_config.json", {"rescale_factor": 1.0}, "rescale_factor"),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize"),
        ("kosmos_edge.json", {"nmae": "x"}, "nmae"),
        ("kosmos_edge.json", {"tags": "x"}, "tags"),
        ("kosmos_edge.json", {"prompt": {"sing": "x"}}, r"'prompt' has 'sing'; expected some of \['caption', "),
        ("kosmos_edge.json", {"trained_tasks": ["sing"]}, "'trained_tasks' has 'sing'; expected some"),
        ("kosmos_edge.json", {"trained_tasks": [["ask"]]}, "trained_tasks"),
    ],
)
def test_wrong_side_files(state, tmp_path, name, content, match):
    fails(state, tmp_path, match, files={name: content})


def test_vocabulary_that_does_not_fit_the_embedding(tmp_path):
    state = convert_state(seed=3, vocab=len(TOKENS) - 1, layers=1, vision_layers=1)
    changes = {
        "text_config__vocab_size": len(TOKENS) - 1,
        "text_config__layers": 1,
        "vision_config__num_hidden_layers": 1,
    }
    fails(state, tmp_path, f"{len(TOKENS)} pieces.*{len(TOKENS) - 1} rows", **changes)


def test_defaults_of_files_that_are_missing(hf, state, tmp_path):
    folder = convert_write_hf(tmp_path / "hf", state)
    for name in ("generation_config.json", "preprocessor_config.json"):
        (folder / name).unlink()
    a = convert(folder, tmp_path / "a.gguf").output
    b = convert(hf, tmp_path / "b.gguf").output
    assert without_provenance(a) == without_provenance(b)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": {"image_mean": [0.5, 0.5, 0.5]}}))
    metadata, _ = gguf(convert(folder, tmp_path / "c.gguf").output)
    assert metadata["clip.vision.image_mean"] == [0.5, 0.5, 0.5]


def test_card_names_the_model(state, tmp_path):
    folder = convert_write_hf(tmp_path / "hf", state)
    card = {
        "name": "Kosmos-2 nano",
        "basename": "Kosmos-2-nano",
        "version": "v0.1",
        "notice": "small world",
        "trained_tasks": ["caption", "ask"],
        "tags": ["nano"],
    }
    (folder / "kosmos_edge.json").write_text(json.dumps({**card, "prompt": {"caption": "A picture of"}}))
    report = convert(folder, tmp_path)
    assert report.output.name == "Kosmos-2-nano-2.8M-v0.1-Q4_K_M.gguf"
    metadata, _ = gguf(report.output)
    assert metadata["general.name"] == "Kosmos-2 nano"
    assert metadata["kosmos2.notice"] == "small world"
    assert metadata["kosmos2.trained_tasks"] == "caption, ask"
    assert metadata["kosmos2.prompt.caption"] == "A picture of"
    assert metadata["kosmos2.prompt.grounding"] == "<grounding>"
    assert any(entry.startswith("kosmos_edge.json:") for entry in report.sha256)


def test_places_without_a_checkpoint(tmp_path):
    out = tmp_path / "out.gguf"
    (tmp_path / "empty").mkdir()
    for source, error, match in [
        (tmp_path / "nowhere", ModelNotFound, "no such file"),
        (tmp_path / "empty", ModelNotFound, "neither config.json nor a .pt"),
        ("/dev/null", ModelNotFound, "regular file"),
        ("nul\0byte", ModelNotFound, "no such file"),
    ]:
        with pytest.raises(error, match=match):
            convert(source, out)
    (tmp_path / "empty" / "config.json").write_text(json.dumps(convert_config()))
    with pytest.raises(ModelNotFound, match=r"no weights.*model\.safetensors"):
        convert(tmp_path / "empty", out)
    for content, error, match in [
        (b"", ModelCorrupt, "empty file"),
        (b"GGUF\3\0\0\0", InvalidRequest, "GGUF file already"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", ModelCorrupt, "git-lfs"),
        (b"\x80\x02}.", ModelCorrupt, "bare pickle"),
        (b"<!DOCTYPE html>", ModelCorrupt, "neither"),
    ]:
        (tmp_path / "empty" / "model.safetensors").write_bytes(content)
        with pytest.raises(error, match=match):
            convert(tmp_path / "empty", out)
    assert not out.exists()


def test_command(hf, tmp_path):
    command = [sys.executable, "-m", "kosmos_edge.convert", str(hf), "-o", str(tmp_path / "a.gguf")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "a.gguf"))
    assert "Q6_K" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and "exists" in again.stderr and again.stdout == ""


def test_shapes_are_counted_twice():
    """The names that the tests write are those of transformers' state dict: 93 tensors at two layers."""
    assert len(convert_shapes()) == 93
    assert convert_cast(struct.pack("<f", 1.5), "BF16") == b"\xc0\x3f"
