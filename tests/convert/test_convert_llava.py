"""Small random LLaVA checkpoints in every published layout become one GGUF file; what is wrong is named."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bpe_vocabularies import SpmBpe
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.llava_checkpoint import (
    ADDED,
    SIZES,
    State,
    config,
    preprocessor,
    random_state,
    write_hf,
    write_json,
    write_own,
)
from PIL import Image

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.convert import convert, requantize, verify
from kosmos_edge.convert.models import MODELS, find_model
from kosmos_edge.convert.models.llava import _large
from kosmos_edge.errors import ContextTooLong, KosmosError, ModelCorrupt, ModelNotFound

ROWS = 640  # of the embedding, for 602 tokens


@pytest.fixture(scope="module")
def vocabulary() -> SpmBpe:
    return SpmBpe()


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(ROWS)


@pytest.fixture(scope="module")
def checkpoint(vocabulary: SpmBpe, state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf(tmp_path_factory.mktemp("hf"), vocabulary, state, ROWS)


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """-> (metadata without what tells of the source's files, tensors)"""
    file = _core.GgufFile(str(path))
    metadata = {key: value for key, value in file.metadata().items() if not key.endswith("source.sha256")}
    return metadata, {name: (dtype, tuple(shape), file.tensor_data(name)) for name, dtype, shape, *_ in file.tensors()}


NAMES = {
    "blk.1.attn_q.weight": "language_model.model.layers.1.self_attn.q_proj.weight",
    "blk.0.attn_k.weight": "language_model.model.layers.0.self_attn.k_proj.weight",
    "blk.0.attn_v.weight": "language_model.model.layers.0.self_attn.v_proj.weight",
    "blk.1.attn_output.weight": "language_model.model.layers.1.self_attn.o_proj.weight",
    "blk.0.attn_norm.weight": "language_model.model.layers.0.input_layernorm.weight",
    "blk.0.ffn_norm.weight": "language_model.model.layers.0.post_attention_layernorm.weight",
    "blk.1.ffn_gate.weight": "language_model.model.layers.1.mlp.gate_proj.weight",
    "blk.1.ffn_up.weight": "language_model.model.layers.1.mlp.up_proj.weight",
    "blk.1.ffn_down.weight": "language_model.model.layers.1.mlp.down_proj.weight",
    "output_norm.weight": "language_model.model.norm.weight",
    "v.class_embd": "vision_tower.vision_model.embeddings.class_embedding",
    "v.patch_embd.weight": "vision_tower.vision_model.embeddings.patch_embedding.weight",
    "v.position_embd.weight": "vision_tower.vision_model.embeddings.position_embedding.weight",
    "v.pre_ln.bias": "vision_tower.vision_model.pre_layrnorm.bias",
    "v.blk.1.attn_out.weight": "vision_tower.vision_model.encoder.layers.1.self_attn.out_proj.weight",
    "v.blk.1.ln2.weight": "vision_tower.vision_model.encoder.layers.1.layer_norm2.weight",
    "v.blk.0.ffn_up.weight": "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
    "v.blk.0.ffn_down.bias": "vision_tower.vision_model.encoder.layers.0.mlp.fc2.bias",
    "mm.0.weight": "multi_modal_projector.linear_1.weight",
    "mm.2.bias": "multi_modal_projector.linear_2.bias",
}


def test_the_file_holds_every_value_that_is_used(checkpoint: Path, state: State, tmp_path: Path) -> None:
    path = convert(checkpoint, tmp_path / "a.gguf", type="f32").output
    metadata, tensors = contents(path)
    for name, source in NAMES.items():
        assert tensors[name] == ("F32", *state[source]), name
    used = 602 * SIZES["width"] * 4
    for name, source in (("token_embd", "model.embed_tokens"), ("output", "lm_head")):
        expected = state[f"language_model.{source}.weight"][1][:used]  # rows that have no token are left out
        assert tensors[f"{name}.weight"] == ("F32", (602, SIZES["width"]), expected)
    dropped = [name for name in state if (".layers.2." in name and "vision" in name) or "post_layernorm" in name]
    assert len(dropped) == 18 and len(tensors) == len(state) - len(dropped)
    assert metadata["llava.vocab_size"] == len(metadata["tokenizer.ggml.tokens"]) == 602
    assert verify(path) == []


def test_a_short_context_has_room_for_an_answer_of_the_default_length(checkpoint: Path, tmp_path: Path) -> None:
    path = convert(checkpoint, tmp_path / "a.gguf", type="f32").output
    model = kosmos_edge.load(path, threads=1)
    model.generate([Image.new("RGB", (9, 9)), "what is this?"])
    with pytest.raises(ContextTooLong, match="the model has 256"):
        model.generate([Image.new("RGB", (9, 9)), "what is this?"], max_tokens=256)


def test_the_keys_are_what_the_engine_reads(checkpoint: Path, vocabulary: SpmBpe, tmp_path: Path) -> None:
    metadata, _ = contents(convert(checkpoint, tmp_path / "a.gguf", type="f32").output)
    own = {key.removeprefix("llava."): value for key, value in metadata.items() if key.startswith("llava.")}
    expected = {
        "context_length": 256, "embedding_length": 64, "block_count": 2, "feed_forward_length": 96,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
        "rope.freq_base": 10000.0, "vision.feature_layer": -2, "image.aspect": "crop", "image.token_id": 600,
        "projector": "mlp2x_gelu", "generation.max_new_tokens": 128, "generation.no_repeat_ngram_size": 0,
        "prompt.question": "USER: {image}\n{question} ASSISTANT:",
    }  # fmt: skip
    assert {key: own[key] for key in expected} == expected
    assert own["attention.layer_norm_rms_epsilon"] == struct.unpack("f", struct.pack("f", 1e-5))[0]
    assert own["prompt.system"].startswith("A chat between a curious user") and own["prompt.system"].endswith(". ")
    assert metadata["general.architecture"] == metadata["clip.projector_type"] == "llava"
    assert (metadata["clip.vision.block_count"], metadata["clip.vision.image_size"]) == (3, 28)
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.tokens"] == [*vocabulary.pieces, *ADDED]
    assert metadata["tokenizer.ggml.padding_token_id"] == 601
    assert metadata["tokenizer.ggml.space_prefix_every_segment"] is True  # tokenizer.json prepends, as published


# ---- layouts


def _transformers5(name: str) -> str:
    if name == "language_model.lm_head.weight":
        return "lm_head.weight"
    return "model." + name.replace("language_model.model.", "language_model.").replace("vision_model.", "")


LAYOUTS: dict[str, Callable[[str], str]] = {
    "transformers 5": _transformers5,
    "as transformers 5 saves": lambda name: name.replace("vision_tower.vision_model.", "vision_tower."),
    "tower with its name": lambda name: (
        "model." + name.replace("language_model.model.", "language_model.")
        if not name.endswith("lm_head.weight")
        else "lm_head.weight"
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_of_other_versions_give_the_same_file(
    checkpoint: Path, vocabulary: SpmBpe, state: State, tmp_path: Path, layout: str
) -> None:
    renamed = {LAYOUTS[layout](name): value for name, value in state.items()}
    renamed["vision_tower.vision_model.embeddings.position_ids"] = ((5,), bytes(20))  # a buffer of old versions
    assert set(renamed) != set(state)
    other = write_hf(tmp_path / "other", vocabulary, renamed, ROWS)
    a = convert(checkpoint, tmp_path / "a.gguf", type="q8_0").output
    b = convert(other, tmp_path / "b.gguf", type="q8_0").output
    assert contents(a) == contents(b)


def test_one_tensor_under_two_names_is_refused(vocabulary: SpmBpe, state: State, tmp_path: Path) -> None:
    twice = state | {"model.language_model.norm.weight": state["language_model.model.norm.weight"]}
    with pytest.raises(ModelCorrupt, match=r"are the same tensor, language_model.model.norm.weight"):
        convert(write_hf(tmp_path / "m", vocabulary, twice, ROWS), tmp_path / "a.gguf")


@pytest.mark.parametrize("linear", [False, True], ids=["v1.5", "v1"])
def test_the_authors_layout_has_its_tower_in_a_folder(vocabulary: SpmBpe, tmp_path: Path, linear: bool) -> None:
    rows = len(vocabulary.pieces)
    state = random_state(rows, linear=linear)
    report = convert(write_own(tmp_path / "own", vocabulary, state), tmp_path / "a.gguf", type="f32")
    metadata, tensors = contents(report.output)
    for name, source in NAMES.items():
        assert (tensors[name] == ("F32", *state[source])) if source in state else name not in tensors
    assert tensors["output.weight"] == ("F32", *state["language_model.lm_head.weight"])
    assert metadata["llava.projector"] == ("linear" if linear else "mlp2x_gelu")
    assert ("curious human" in metadata["llava.prompt.system"]) == linear
    assert metadata["general.version"] == ("v1" if linear else "v1.5")
    assert metadata["llava.image.token_id"] == 0  # no <image> in this vocabulary
    names = {entry.rpartition(":")[0] for entry in report.sha256}
    assert {"model.safetensors", "vision_tower/model.safetensors", "vision_tower/preprocessor_config.json"} <= names
    if not linear:
        same = write_hf(tmp_path / "hf", vocabulary, state, rows, added=(), image_token_index=0)
        # The authors encode the text on each side of an image by itself, whatever `legacy` says.
        write_json(same, tokenizer_config={"legacy": True})
        assert contents(convert(same, tmp_path / "b.gguf", type="f32").output) == (metadata, tensors)


def test_a_whole_clip_checkpoint_serves_as_the_tower(vocabulary: SpmBpe, tmp_path: Path) -> None:
    state = random_state(len(vocabulary.pieces))
    own = write_own(tmp_path / "own", vocabulary, state)
    tower = {name.removeprefix("vision_tower."): value for name, value in state.items() if name.startswith("vision_")}
    tower |= {"text_model.final_layer_norm.bias": ((4,), bytes(16)), "logit_scale": ((1,), bytes(4))}
    (own / "vision_tower" / "model.safetensors").write_bytes(convert_safetensors_bytes(tower))
    write_json(own / "vision_tower", config={"model_type": "clip", "vision_config": config(1)["vision_config"]})
    _, tensors = contents(convert(own, tmp_path / "a.gguf", type="f32").output)
    assert tensors["v.pre_ln.bias"] == ("F32", *state["vision_tower.vision_model.pre_layrnorm.bias"])


def test_a_tower_inside_of_the_weights_goes_before_the_folders(vocabulary: SpmBpe, tmp_path: Path) -> None:
    state = random_state(len(vocabulary.pieces))
    own = write_own(tmp_path / "own", vocabulary, random_state(len(vocabulary.pieces), seed=9))
    inside = {f"model.vision_tower.{k}" if k.startswith("vision_") else k: v for k, v in state.items()}
    inside = {k.removeprefix("language_model."): v for k, v in inside.items()}
    (own / "model.safetensors").write_bytes(convert_safetensors_bytes(inside))
    _, tensors = contents(convert(own, tmp_path / "a.gguf", type="f32").output)
    assert tensors["v.pre_ln.bias"] == ("F32", *state["vision_tower.vision_model.pre_layrnorm.bias"])


def test_a_tower_that_is_not_there_is_asked_for(vocabulary: SpmBpe, tmp_path: Path) -> None:
    own = write_own(tmp_path / "own", vocabulary, random_state(len(vocabulary.pieces)))
    (own / "vision_tower").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelNotFound, match=r"put the checkpoint of 'openai/clip-vit-large-patch14' .* there"):
        convert(own, tmp_path / "a.gguf")


# ---- settings


def test_old_settings_leave_out_what_the_classes_have() -> None:
    """llava-1.5-7b-hf's config.json, and one without a tower's settings."""
    text = {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "vocab_size": 32064}
    c = find_model({"model_type": "llava"}).read_config({"model_type": "llava", "text_config": text})
    assert (c.vocab, c.width, c.ff_width, c.layers, c.heads, c.kv_heads) == (32064, 4096, 11008, 32, 32, 32)
    assert (c.rope_base, c.rope_scale, c.context, c.head_dim) == (10000.0, 1.0, 4096, 128)
    assert c.tower == _large(336) and c.feature_layer == -2 and c.image_id == 32000
    assert sum(1 for _ in MODELS["llava"].tensor_table(c)) == 3 + 32 * 9 + 5 + 23 * 16 + 4


@pytest.mark.parametrize(
    "changes, base, scale",
    [
        ({"rope_theta": 500000.0}, 500000.0, 1.0),
        ({"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}}, 1e6, 2.0),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 20000}}, 20000.0, 1.0),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 20000, "factor": 4}}, 20000.0, 4.0),
        ({"rope_scaling": None}, 10000.0, 1.0),
    ],
)
def test_rotary_positions_of_old_and_new_settings(changes: dict[str, Any], base: float, scale: float) -> None:
    settings = config(ROWS)
    settings["text_config"] |= changes
    c = MODELS["llava"].read_config(settings)
    assert (c.rope_base, c.rope_scale) == (base, scale)


@pytest.mark.parametrize("layer, expected", [(-1, -1), (-3, -3), (2, -2), (3, -1)])
def test_a_feature_layer_counts_from_either_end(
    vocabulary: SpmBpe, state: State, tmp_path: Path, layer: int, expected: int
) -> None:
    folder = write_hf(tmp_path / "m", vocabulary, state, ROWS, vision_feature_layer=layer)
    metadata, tensors = contents(convert(folder, tmp_path / "a.gguf", type="f32").output)
    assert metadata["llava.vision.feature_layer"] == expected
    assert {name.split(".")[2] for name in tensors if name.startswith("v.blk.")} == set(map(str, range(4 + expected)))


def test_heads_of_a_width_of_their_own_and_scaled_positions(vocabulary: SpmBpe, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "m", vocabulary, random_state(ROWS, head=24), ROWS, text_config__head_dim=24,
                      text_config__rope_scaling={"rope_type": "linear", "factor": 2.0})  # fmt: skip
    metadata, tensors = contents(convert(folder, tmp_path / "a.gguf", type="f32").output)
    assert metadata["llava.attention.key_length"] == 24 and tensors["blk.0.attn_k.weight"][1] == (48, 64)
    assert (metadata["llava.rope.scaling.type"], metadata["llava.rope.scaling.factor"]) == ("linear", 2.0)


def test_a_tied_head_is_stored_as_one_of_its_own(vocabulary: SpmBpe, state: State, tmp_path: Path) -> None:
    head, embedding = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    tied = {name: value for name, value in state.items() if name != head}
    folder = write_hf(tmp_path / "a", vocabulary, tied, ROWS, tie_word_embeddings=True)
    _, tensors = contents(convert(folder, tmp_path / "a.gguf", type="f32").output)
    assert tensors["output.weight"] == tensors["token_embd.weight"]
    both = write_hf(tmp_path / "b", vocabulary, tied | {head: state[embedding]}, ROWS, tie_word_embeddings=True)
    assert contents(convert(both, tmp_path / "b.gguf", type="f32").output)[1] == tensors
    other = write_hf(tmp_path / "c", vocabulary, state, ROWS, text_config__tie_word_embeddings=True)
    with pytest.raises(ModelCorrupt, match=r"lm_head.weight differs from the embedding"):
        convert(other, tmp_path / "c.gguf")


@pytest.mark.parametrize("do_pad, expected", [(True, "pad"), (False, "crop"), (None, "crop")])
def test_pictures_are_padded_or_cropped_as_the_processor_says(
    vocabulary: SpmBpe, state: State, tmp_path: Path, do_pad: bool | None, expected: str
) -> None:
    folder = write_hf(tmp_path / "m", vocabulary, state, ROWS)
    write_json(folder, preprocessor_config=preprocessor(**({} if do_pad is None else {"do_pad": do_pad})))
    metadata, _ = contents(convert(folder, tmp_path / "a.gguf").output)
    assert metadata["llava.image.aspect"] == expected


@pytest.mark.parametrize("ratio, expected", [("pad", "pad"), ("square", "crop"), (None, "crop")])
def test_the_authors_settings_say_the_same(
    vocabulary: SpmBpe, tmp_path: Path, ratio: str | None, expected: str
) -> None:
    own = write_own(tmp_path / "m", vocabulary, random_state(len(vocabulary.pieces)), image_aspect_ratio=ratio)
    assert contents(convert(own, tmp_path / "a.gguf").output)[0]["llava.image.aspect"] == expected


def test_a_card_says_how_the_model_is_called(vocabulary: SpmBpe, state: State, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "m", vocabulary, state, ROWS)
    card = {"name": "Tiny", "basename": "Tiny", "license": "apache-2.0", "prompt": {"system": "", "caption": "{image}"}}
    write_json(folder, kosmos_edge=card)
    report = convert(folder, tmp_path, type="q8_0")
    metadata, _ = contents(report.output)
    assert report.output.name.startswith("Tiny-") and metadata["general.license"] == "apache-2.0"
    assert "llava.prompt.system" not in metadata and metadata["llava.prompt.caption"] == "{image}"


# ---- storage types


def test_stored_types(vocabulary: SpmBpe, tmp_path: Path) -> None:
    """Rows of 256 values are K-quants, others fall back, as the report says; requantizing gives the same types."""
    wide = {"width": 256, "ff": 512, "head": 64, "vision": 64}
    folder = write_hf(tmp_path / "m", vocabulary, random_state(ROWS, **wide), ROWS,
                      text_config__hidden_size=256, text_config__intermediate_size=512,
                      vision_config__hidden_size=64)  # fmt: skip
    report = convert(folder, tmp_path / "a.gguf", type="q4_k_m")
    _, tensors = contents(report.output)
    types = {name: dtype for name, (dtype, *_) in tensors.items()}
    assert types["token_embd.weight"] == types["blk.0.attn_q.weight"] == types["blk.0.ffn_gate.weight"] == "Q4_K"
    assert types["output.weight"] == types["blk.1.ffn_down.weight"] == "Q6_K"
    assert types["mm.2.weight"] == types["v.blk.0.attn_q.weight"] == "Q8_0"
    assert types["v.patch_embd.weight"] == "F16"
    assert types["blk.0.attn_norm.weight"] == types["mm.0.bias"] == types["v.position_embd.weight"] == "F32"
    assert any("v.blk.0.attn_q.weight: stored as Q8_0" in text for text in report.fallbacks)
    whole = convert(folder, tmp_path / "f32.gguf", type="f32").output
    again = requantize(whole, tmp_path / "b.gguf", type="q4_k_m")
    assert contents(again.output) == contents(report.output) and verify(again.output) == []
    assert again.fallbacks == report.fallbacks


def test_half_precision_weights(vocabulary: SpmBpe, state: State, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "m", vocabulary, state, ROWS, dtype="F16")
    _, tensors = contents(convert(folder, tmp_path / "a.gguf", type="f16").output)
    assert tensors["blk.0.ffn_gate.weight"][0] == "F16" and tensors["blk.0.attn_norm.weight"][0] == "F32"


# ---- what is refused

BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "another decoder": ({"text_config__model_type": "mistral"}, "model_type is 'mistral', expected 'llama'"),
    "another tower": ({"vision_config__model_type": "siglip_vision_model"}, "model_type is 'siglip_vision_model'"),
    "gelu in the tower": ({"vision_config__hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'quick_gelu'"),
    "relu": ({"text_config__hidden_act": "relu"}, "text_config.hidden_act is 'relu', expected 'silu'"),
    "a bias": ({"text_config__attention_bias": True}, "attention_bias is True, expected False"),
    "no bias": ({"multimodal_projector_bias": False}, "multimodal_projector_bias is False, expected True"),
    "another projector": ({"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu'"),
    "the class token": ({"vision_feature_select_strategy": "full"}, "select_strategy is 'full', expected 'default'"),
    "several layers": (
        {"vision_feature_layer": [-2, -1]},
        r"linear_1.weight has the shape \(64, 32\), expected \(64, 64\)",
    ),
    "no layers": ({"vision_feature_layer": []}, "vision_feature_layer is list of 0, expected a layer, or a list"),
    "layers too far": ({"vision_feature_layer": [-2, -4]}, "vision_feature_layer is list of 2, expected a layer"),
    "a layer too far": (
        {"vision_feature_layer": -4},
        r"vision_feature_layer is -4, expected a layer, or a list of them, -3..-1",
    ),
    "the embeddings": ({"vision_feature_layer": 0}, "vision_feature_layer is 0, expected a layer"),
    "scaled positions": (
        {"text_config__rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        "rope_scaling.rope_type is 'llama3', expected 'default' or 'linear'",
    ),
    "a part of the head": ({"text_config__partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, expected 1"),
    "KV heads": ({"text_config__num_key_value_heads": 3}, "these are none of 3 KV heads"),
    "heads": ({"text_config__num_attention_heads": 5}, "64 is no multiple of 5 heads"),
    "a size that is a text": ({"text_config__hidden_size": "64"}, "hidden_size is '64', expected 1"),
    "no object": ({"text_config": [1]}, "text_config is list of 1, expected an object"),
    "patches": ({"vision_config__patch_size": 13}, "image_size 28 none of patch_size 13"),
    "an image token beyond": ({"image_token_index": 620}, "image_token_index is 620, which is no added token"),
    "an image token that is a word": ({"image_token_index": 400}, "image_token_index is 400, which is no added token"),
    "few rows": ({"text_config__vocab_size": 600}, "602 tokens, the embedding has 600 rows"),
    "another number of rows": ({"text_config__vocab_size": 650}, r"embed_tokens.weight has the shape \(640, 64\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_settings_that_cannot_be_run(vocabulary: SpmBpe, state: State, tmp_path: Path, case: str) -> None:
    changes, message = BAD_SETTINGS[case]
    folder = write_hf(tmp_path / "m", vocabulary, state, ROWS, **changes)
    with pytest.raises(ModelCorrupt, match=message):
        convert(folder, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres', expected 'square' or 'pad'"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type is 'spatial_unpad', expected 'flat'"),
        ({"mm_use_im_start_end": True}, "there is no <im_start>; config.json says mm_use_im_start_end"),
        ({"mm_use_im_start_end": 1}, "mm_use_im_start_end is 1, expected False or True"),
        ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type is 'mlp3x_gelu'"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature is 'cls_patch'"),
        ({"mm_vision_select_layer": -9}, "mm_vision_select_layer is -9, expected a layer"),
        ({"mm_projector_type": "linear"}, r"linear_2.* is not a tensor of LLaVA"),
    ],
)
def test_the_authors_settings_that_cannot_be_run(
    vocabulary: SpmBpe, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    own = write_own(tmp_path / "own", vocabulary, random_state(len(vocabulary.pieces)), **changes)
    with pytest.raises(ModelCorrupt, match=message):
        convert(own, tmp_path / "a.gguf")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"do_center_crop": False}, "do_center_crop is False; only True"),
        ({"size": {"height": 28, "width": 28}}, "size is dict of 2; only {'shortest_edge': 28}"),
        ({"crop_size": {"height": 56, "width": 56}}, "crop_size is dict of 2"),
        ({"do_pad": 1}, "do_pad is 1"),
        ({"resample": 2}, "resample is 2"),
        ({"image_std": [1, 0, 1]}, "image_std is list of 3; only a list of three numbers above 0"),
    ],
)
def test_pictures_that_are_prepared_otherwise(
    vocabulary: SpmBpe, state: State, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_hf(tmp_path / "m", vocabulary, state, ROWS)
    write_json(folder, preprocessor_config=preprocessor(**changes))
    with pytest.raises(ModelCorrupt, match=message):
        convert(folder, tmp_path / "a.gguf")


def test_other_versions_are_named() -> None:
    with pytest.raises(ModelCorrupt, match=r"model_type is 'llava_next'; expected one of .*llava"):
        find_model({"model_type": "llava_next"})


def test_tensors_that_are_missing_misshapen_or_unknown(vocabulary: SpmBpe, state: State, tmp_path: Path) -> None:
    bad = dict(state)
    del bad["language_model.model.layers.1.mlp.gate_proj.weight"]
    bad["multi_modal_projector.linear_1.weight"] = ((32, 64), state["multi_modal_projector.linear_1.weight"][1])
    bad["image_newline"] = ((64,), bytes(256))
    with pytest.raises(ModelCorrupt) as error:
        convert(write_hf(tmp_path / "m", vocabulary, bad, ROWS), tmp_path / "a.gguf")
    text = str(error.value)
    assert "layers.1.mlp.gate_proj.weight (96, 64) is missing" in text
    assert "multi_modal_projector.linear_1.weight has the shape (32, 64), expected (64, 32)" in text
    assert "image_newline (64,) is not a tensor of LLaVA" in text and "3 tensors do not fit" in text


@pytest.mark.parametrize("at", [4, 1000, -1])
def test_cut_weights(checkpoint: Path, tmp_path: Path, at: int) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    for file in checkpoint.iterdir():
        data = file.read_bytes()
        (folder / file.name).write_bytes(data[:at] if file.suffix == ".safetensors" else data)
    with pytest.raises(ModelCorrupt, match=r"model.safetensors"):
        convert(folder, tmp_path / "a.gguf")


def test_a_cut_file_does_not_requantize(checkpoint: Path, tmp_path: Path) -> None:
    path = convert(checkpoint, tmp_path / "a.gguf", type="f32").output
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(KosmosError, match=r"cut.gguf"):
        requantize(cut, tmp_path / "b.gguf", type="q8_0")


def test_a_vocabulary_of_another_kind(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}))
    with pytest.raises(ModelCorrupt, match="model is 'Unigram'; expected a BPE model"):
        convert(checkpoint, tmp_path / "a.gguf", tokenizer=other)


def test_prompts_begin_with_a_token(vocabulary: SpmBpe, state: State, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "m", vocabulary, state, ROWS)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder, tokenizer_config=settings | {"add_bos_token": False})
    with pytest.raises(ModelCorrupt, match="add_bos_token is false"):
        convert(folder, tmp_path / "a.gguf")
