"""Small random OpenFlamingo checkpoints of three parts become one GGUF file; what is not supported is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.description import described
from models.openflamingo import ADDED, END, IMAGE_ID, PIECES, published, write_parts

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, verify
from kosmos_edge.convert.models import MODELS, find_model
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

OF = described()["openflamingo"]
PATH = "lang_encoder.gpt_neox.layers."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OF.write_checkpoint(tmp_path_factory.mktemp("openflamingo") / "parts")


def changed(folder: Path, *weights: dict[str, Any], **settings: Any) -> Path:
    """A checkpoint with some other weights of its parts (None: without), and other settings:
    "lang_encoder__config__key" is a path, beginning with the folder ("" : the outer one); None takes a key out."""
    parts = [dict(part) for part in published(OF.tiny.weights)]
    for part, more in zip(parts, weights, strict=False):
        part |= more
    write_parts(folder, *({n: w for n, w in part.items() if w is not None} for part in parts))
    for path, value in settings.items():
        inner, file, *keys = path.split("__")
        where = folder / inner / f"{file}.json"
        root = at = json.loads(where.read_text())
        for key in keys[:-1]:
            at = at[key]
        at.pop(keys[-1], None)
        if value is not None:
            at[keys[-1]] = value
        where.write_text(json.dumps(root))
    return folder


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
    """-> (metadata without what tells of the source's files, tensors)"""
    file = _core.GgufFile(str(path))
    metadata = {key: value for key, value in file.metadata().items() if not key.endswith("source.sha256")}
    return metadata, {name: (dtype, file.tensor_data(name)) for name, dtype, *_ in file.tensors()}


def test_its_row() -> None:
    assert find_model({"model_type": "openflamingo"}) is MODELS["openflamingo"]
    assert find_model({"family": "openflamingo"}) is MODELS["openflamingo"]


def test_every_value_has_its_place(checkpoint: Path, tmp_path: Path) -> None:
    """A head's queries, keys and values lie together in the language model; what was trained takes the place of the
    embeddings that it had."""
    report = convert(checkpoint, tmp_path / "a.gguf", type="f32")
    _, tensors = contents(report.output)
    assert {name: data for name, (_, data) in tensors.items()} == {n: w.tobytes() for n, w in OF.tiny.weights.items()}
    names = {entry.rpartition(":")[0] for entry in report.sha256}
    assert {"checkpoint.pt", "lang_encoder/model.safetensors", "vision/model.safetensors"} <= names
    assert {"lang_encoder/vocab.json", "lang_encoder/merges.txt", "vision/preprocessor_config.json"} <= names


def test_the_keys_are_what_the_engine_reads(checkpoint: Path, tmp_path: Path) -> None:
    metadata, _ = contents(convert(checkpoint, tmp_path / "a.gguf", type="f32").output)
    own = {key.removeprefix("openflamingo."): value for key, value in metadata.items()}
    expected = {
        "context_length": 512, "embedding_length": 256, "block_count": 4, "feed_forward_length": 512,
        "attention.head_count": 4, "rope.freq_base": 10000.0, "rope.dimension_count": 16, "cross_attention.every": 2,
        "cross_attention.head_count": 8, "cross_attention.key_length": 64, "cross_attention.feed_forward_length": 1024,
        "perceiver.block_count": 2, "perceiver.attention.head_count": 8, "perceiver.attention.key_length": 64,
        "perceiver.feed_forward_length": 1024, "perceiver.query_count": 8, "image.token_id": IMAGE_ID,
        "generation.end_token_id": END, "prompt.question": "{image}Question:{question} Short answer:",
        "clip.use_gelu": False, "tokenizer.ggml.model": "gpt2", "general.license": "mit",
    }  # fmt: skip
    assert {key: own[key] for key in expected} == expected
    for key in ("attention", "perceiver.attention", "clip.vision.attention"):
        assert own[f"{key}.layer_norm_epsilon"] == np.float32(1e-5)
    assert own["tokenizer.ggml.tokens"][-2:] == list(ADDED) and own["tokenizer.ggml.token_type"][-2:] == [4, 4]


def test_other_paths_of_the_trained_tensors(checkpoint: Path, tmp_path: Path) -> None:
    """Of data-parallel training, and under the alias of the gated blocks."""
    trained, language, tower = published(OF.tiny.weights)
    aliased = {
        f"module.{name}".replace(PATH, "lang_encoder.gated_cross_attn_layers.").replace(
            ".gated_cross_attn_layer.", "."
        ): w
        for name, w in trained.items()
    }
    write_parts(tmp_path / "m", aliased, language, tower)
    a, b = (convert(p, tmp_path / f"{i}.gguf", type="f32").output for i, p in enumerate((checkpoint, tmp_path / "m")))
    assert contents(a) == contents(b)
    write_parts(tmp_path / "n", {**trained, **aliased}, language, tower)
    with pytest.raises(ModelCorrupt, match=r"are the same tensor, "):
        convert(tmp_path / "n", tmp_path / "c.gguf")


def test_a_padding_is_added_where_the_rows_say_so(tmp_path: Path) -> None:
    """<PAD> comes last; the language model's own vocabulary may have all of these already."""
    rows = {f"lang_encoder.{n}.weight": np.concatenate([OF.tiny.weights[w], np.ones((1, 256), np.float32)])
            for n, w in (("gpt_neox.embed_in", "token_embd.weight"), ("embed_out", "output.weight"))}  # fmt: skip
    path = convert(changed(tmp_path / "m", rows), tmp_path / "a.gguf", type="f32").output
    metadata, tensors = contents(path)
    assert metadata["tokenizer.ggml.tokens"][-3:] == [*ADDED, "<PAD>"] and verify(path) == []
    assert len(tensors["output.weight"][1]) == (len(PIECES.pieces) + 1) * 1024
    assert load(path, threads=1).model_info["vocabulary"] == len(PIECES.pieces) + 1


def test_a_whole_clip_checkpoint_serves_as_the_tower(checkpoint: Path, tmp_path: Path) -> None:
    other = {"text_model.final_layer_norm.bias": np.ones(4), "visual_projection.weight": np.ones((2, 2))}
    other |= {"vision_model.post_layernorm.weight": np.ones(256), "logit_scale": np.ones(1)}
    folder = changed(tmp_path / "m", {}, {}, other)
    config = folder / "vision" / "config.json"
    config.write_text(json.dumps({"model_type": "clip", "vision_config": json.loads(config.read_text())}))
    a, b = (convert(p, tmp_path / f"{i}.gguf", type="f32").output for i, p in enumerate((checkpoint, folder)))
    assert contents(a) == contents(b)


@pytest.mark.parametrize("part", ["lang_encoder", "vision"])
def test_a_part_that_is_not_there_is_asked_for(checkpoint: Path, tmp_path: Path, part: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(checkpoint, folder)
    shutil.rmtree(folder / part)
    with pytest.raises(ModelNotFound, match=rf"no folder .*{part}: put .* there"):
        convert(folder, tmp_path / "a.gguf")


GATE = f"{PATH}1.gated_cross_attn_layer.attn_gate"
WRONG: dict[str, tuple[tuple[dict[str, Any], ...], dict[str, Any], str]] = {
    "OPT": ((), {"lang_encoder__config__model_type": "opt"}, "model_type is 'opt', expected 'gpt_neox'"),
    "parallel halves": ((), {"lang_encoder__config__use_parallel_residual": True}, "use_parallel_residual is True"),
    "parallel by default": ((), {"lang_encoder__config__use_parallel_residual": None}, "use_parallel_residual is None"),
    "tied": ((), {"lang_encoder__config__tie_word_embeddings": True}, "tie_word_embeddings is True, expected False"),
    "another activation": ((), {"lang_encoder__config__hidden_act": "relu"}, "hidden_act is 'relu', expected 'gelu'"),
    "odd heads": ((), {"lang_encoder__config__num_attention_heads": 7}, "a multiple of 7 heads"),
    "scaled positions": ((), {"lang_encoder__config__rope_scaling": {"a": 1}}, "rope_scaling is .*, expected none"),
    "no interval": ((), {"__config__cross_attn_every_n_layers": None}, "cross_attn_every_n_layers is None, expected"),
    "a long interval": ((), {"__config__cross_attn_every_n_layers": 5}, "at least cross_attn_every_n_layers, 5"),
    "another interval": ((), {"__config__cross_attn_every_n_layers": 4}, r"cross\.1\.attn.* is not a tensor of"),
    "another tower": ((), {"vision__config__hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'quick_gelu'"),
    "a squashed picture": ((), {"vision__preprocessor_config__do_center_crop": False}, "do_center_crop is False"),
    "another size": ((), {"vision__preprocessor_config__size": {"shortest_edge": 64}}, "only .*56"),
    "no gate": (({GATE: None},), {}, r"cross\.1\.attn_gate \(1,\) is missing"),
    "a gate of several": (({GATE: np.ones(3)},), {}, r"cross\.1\.attn_gate has the shape \(3,\), expected \(1,\)"),
    "no latents": (({"perceiver.latents": None},), {}, "perceiver.latents is missing"),
    "odd keys": (({"perceiver.layers.0.0.to_kv.weight": np.ones((3, 256))},), {}, "expected a multiple of 2 rows"),
    "too few rows": (({"lang_encoder.embed_out.weight": np.ones((9, 256))},), {}, "embed_out.weight has 9 rows"),
    "more of it": (({"perceiver.frame_embs": np.ones((2, 256))},), {}, "perceiver.frame_embs .* is not a tensor of"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_supported_is_named(tmp_path: Path, case: str) -> None:
    weights, settings, message = WRONG[case]
    with pytest.raises(ModelCorrupt, match=message):
        convert(changed(tmp_path / "m", *weights, **settings), tmp_path / "a.gguf")
