"""mPLUG-Owl checkpoints: rows of heads, shapes, settings that cannot be run, pictures, vocabularies."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.convert_checkpoint import convert_safetensors_bytes
from models.description import described
from models.llava import PIECES
from models.mplug_owl import VISION, config_json, published_state, write_checkpoint

from kosmos_edge import _core
from kosmos_edge.convert import convert, requantize, verify
from kosmos_edge.convert.models import mplug_owl
from kosmos_edge.errors import ModelCorrupt

OF = described()["mplug_owl"]
HEADS = VISION["attention.head_count"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("mplug_owl") / "hf", OF.tiny)


def copy(checkpoint: Path, folder: Path, dtype: str = "", state: dict[str, np.ndarray] | None = None) -> Path:
    """The checkpoint with other weights."""
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if dtype or state is not None:
        weights = published_state(OF.tiny.weights, HEADS) if state is None else state
        raw = {name: (array.shape, array.astype("<f4").tobytes()) for name, array in weights.items()}
        (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(raw, dtype or "F32"))
    return folder


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Keys of a JSON file; a key may name a section: text_config__vocab_size. None takes one out."""
    settings = json.loads((folder / name).read_text())
    for key, value in changes.items():
        *sections, last = key.split("__")
        at = settings
        for section in sections:
            at = at[section]
        at[last] = value
        if value is None:
            del at[last]
    (folder / name).write_text(json.dumps(settings))


def tensors(path: Path) -> dict[str, np.ndarray]:
    file = _core.GgufFile(str(path))
    return {
        name: np.frombuffer(_core.dequantize(dtype, file.tensor_data(name), int(np.prod(shape))), "f").reshape(shape)
        for name, dtype, shape, *_ in file.tensors()
    }


def test_each_head_has_its_own_queries_keys_and_values(checkpoint: Path, tmp_path: Path) -> None:
    """In one matrix of the checkpoint, head by head; in float32 and in 16 bits."""
    for dtype in ("F32", "F16", "BF16"):
        folder = copy(checkpoint, tmp_path / dtype, dtype)
        found = tensors(convert(folder, tmp_path / f"{dtype}.gguf", type="f32").output)
        assert set(found) == set(OF.tiny.weights)
        for name, expected in OF.tiny.weights.items():
            if name == "v.patch_embd.weight" or dtype == "F32":
                assert np.allclose(found[name], expected, atol=0 if dtype == "F32" else 0.05), name
            else:
                assert np.allclose(found[name], expected, rtol=2**-7, atol=2**-14), name


def test_parts_that_are_read_in_pieces(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any size: the same file, and the same hash of its source."""
    whole = convert(checkpoint, tmp_path / "a.gguf", type="q8_0")
    for size in (1 << 10, 5000, 1 << 17):
        monkeypatch.setattr("kosmos_edge.convert.writer.CHUNK_BYTES", size)
        again = convert(checkpoint, tmp_path / f"{size}.gguf", type="q8_0")
        assert again.output.read_bytes() == whole.output.read_bytes() and again.sha256 == whole.sha256


def test_the_published_settings(checkpoint: Path) -> None:
    """What a config.json leaves out has the published value: 105,097,216 weights in the abstractor."""
    c = mplug_owl.read_config({"model_type": "mplug-owl"})
    rows = {name: int(np.prod(shape)) for _, name, shape in mplug_owl.tensor_table(c)}
    assert sum(count for name, count in rows.items() if name.startswith("mm.")) == 105_097_216
    assert sum(rows.values()) == 7_146_692_608
    assert (c.decoder.eps, c.decoder.context, c.tower.eps, c.abstractor.queries) == (1e-6, 2048, 1e-6, 64)


def test_stored_types(checkpoint: Path, tmp_path: Path) -> None:
    report = convert(checkpoint, tmp_path / "a.gguf", type="q4_k_m")
    assert verify(report.output) == [] and report.fallbacks == []
    stored = {name: dtype for name, dtype, *_ in _core.GgufFile(str(report.output)).tensors()}
    assert stored["mm.query"] == stored["mm.end"] == stored["mm.blk.0.ffn_sub_norm.weight"] == "F32"
    assert stored["mm.blk.0.ffn_down.weight"] == stored["mm.0.weight"] == "Q8_0"
    assert stored["blk.0.attn_q.weight"] == "Q4_K" and stored["v.blk.0.attn_q.weight"] == "Q6_K"
    again = requantize(report.output, tmp_path / "b.gguf", type="q4_0").output
    assert verify(again) == []


def test_every_prompt_begins_and_every_text_has_a_blank(checkpoint: Path, tmp_path: Path) -> None:
    """Whatever the tokenizer's settings say, and of either of its files; padding that is another token is none."""
    folder = copy(checkpoint, tmp_path / "a")
    for changes in ({}, {"add_bos_token": True, "legacy": False}, {"pad_token": "</s>"}):
        edit(folder, "tokenizer_config.json", **changes)
        metadata = _core.GgufFile(str(convert(folder, tmp_path / "a.gguf", overwrite=True).output)).metadata()
        assert metadata["tokenizer.ggml.add_bos_token"] is True
        assert metadata["tokenizer.ggml.space_prefix_every_segment"] is True
        assert metadata["mplug_owl.image.token_id"] == metadata["tokenizer.ggml.unknown_token_id"] == 0
        assert "tokenizer.ggml.padding_token_id" not in metadata


def test_rows_that_pad_the_vocabulary_and_a_tied_head(checkpoint: Path, tmp_path: Path) -> None:
    state = published_state(OF.tiny.weights, HEADS)
    embedding, head = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
    tokens, width = state[embedding].shape
    padded = {name: np.concatenate([state[name], np.ones((24, width), "f")]) for name in (embedding, head)}
    folder = copy(checkpoint, tmp_path / "padded", state={**state, **padded})
    edit(folder, "config.json", text_config__vocab_size=tokens + 24)
    assert tensors(convert(folder, tmp_path / "a.gguf", type="f32").output)["output.weight"].shape == (tokens, width)
    tied = {name: array for name, array in state.items() if name != head}
    folder = copy(checkpoint, tmp_path / "tied", state=tied)
    edit(folder, "config.json", text_config__tie_word_embeddings=True)
    found = tensors(convert(folder, tmp_path / "b.gguf", type="f32").output)
    assert (found["output.weight"] == state[embedding]).all()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "the multilingual one": ({"text_config__model_type": "bloom"}, "text_config.model_type is 'bloom'"),
    "positions in the abstractor": ({"visual_abstractor_config__add_v2t_pos_emb": True}, "add_v2t_pos_emb is True"),
    "another abstractor": ({"visual_abstractor_config__model_type": "x"}, "visual_abstractor_config.model_type is 'x'"),
    "another width": ({"visual_abstractor_config__hidden_size": 512}, "hidden_size is 512, expected the tower"),
    "other features": ({"visual_abstractor_config__encoder_hidden_size": 128}, "encoder_hidden_size is 128"),
    "heads that do not fit": ({"visual_abstractor_config__num_attention_heads": 7}, "a divisor of hidden_size"),
    "another tower": ({"vision_config__model_type": "clip_vision_model"}, "vision_config.model_type"),
    "another GELU": ({"vision_config__hidden_act": "gelu"}, "vision_config.hidden_act is 'gelu'"),
    "heads of the tower": ({"vision_config__num_attention_heads": 5}, "is no multiple of 5 heads"),
    "no queries": ({"num_query_tokens": 0}, "num_query_tokens is 0"),
    "no section": ({"vision_config": 3}, "vision_config is 3, expected an object"),
    "scaled otherwise": ({"text_config__rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type is 'dynamic'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_settings_that_cannot_be_run(checkpoint: Path, tmp_path: Path, case: str) -> None:
    changes, message = BAD[case]
    folder = copy(checkpoint, tmp_path / "x")
    edit(folder, "config.json", **changes)
    with pytest.raises(ModelCorrupt, match=message):
        convert(folder, tmp_path / "x.gguf")


@pytest.mark.parametrize("size", [56, {"height": 56, "width": 56}, {"shortest_edge": 56}, None])
def test_pictures_are_squashed(checkpoint: Path, tmp_path: Path, size: Any) -> None:
    """However CLIP's steps behind it are written down."""
    folder = copy(checkpoint, tmp_path / "x")
    edit(folder, "preprocessor_config.json", size=size)
    path = convert(folder, tmp_path / "x.gguf").output
    assert _core.model_info(str(path))["preprocessing"] == "resized to 56 x 56, aspect not kept"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"size": 64}, "size is 64"), ({"crop_size": 32}, "crop_size is 32"), ({"resample": 2}, "resample is 2")],
)
def test_pictures_that_are_prepared_otherwise(
    checkpoint: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = copy(checkpoint, tmp_path / "x")
    edit(folder, "preprocessor_config.json", **changes)
    with pytest.raises(ModelCorrupt, match=message):
        convert(folder, tmp_path / "x.gguf")


def without(name: str) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda state: state.__delitem__(name)


FUSED = "vision_model.encoder.layers.0.self_attn.query_key_value.weight"
MISFITS: dict[str, tuple[Callable[[dict[str, np.ndarray]], Any], str]] = {
    "no last row": (without("abstractor.vit_eos"), "abstractor.vit_eos .* is missing"),
    "no queries": (without("query_tokens"), "query_tokens .* is missing"),
    "no fused matrix": (without(FUSED), r"self_attn.q.weight .* is missing"),
    "a short fused matrix": (lambda s: s.update({FUSED: s[FUSED][:-1]}), "query_key_value.weight .* is not a tensor"),
    "a narrow fused matrix": (lambda s: s.update({FUSED: s[FUSED][:, :-1]}), r"self_attn.q.weight has the shape"),
    "another last row": (
        lambda s: s.update({"abstractor.vit_eos": np.ones((1, 2, 256), "f")}), "vit_eos has the shape .*1, 2, 256"
    ),
    "one too many": (lambda s: s.update({"abstractor.other": np.ones(3, "f")}), "abstractor.other .* is not a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_tensors_that_do_not_fit(checkpoint: Path, tmp_path: Path, case: str) -> None:
    change, message = MISFITS[case]
    state = published_state(OF.tiny.weights, HEADS)
    change(state)
    with pytest.raises(ModelCorrupt, match=message):
        convert(copy(checkpoint, tmp_path / "x", state=state), tmp_path / "x.gguf")


def test_cut_weights(checkpoint: Path, tmp_path: Path) -> None:
    """In the middle of a matrix that is read in runs, too."""
    folder = copy(checkpoint, tmp_path / "x")
    whole = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    begin, end = json.loads(whole[8 : 8 + size])[FUSED]["data_offsets"]
    for at in (100, 8 + size + (begin + end) // 2, len(whole) - 1):
        (folder / "model.safetensors").write_bytes(whole[:at])
        with pytest.raises(ModelCorrupt):
            convert(folder, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_other_generations_are_named() -> None:
    assert (
        mplug_owl.recognises(config_json(OF.tiny))
        and len(PIECES.pieces) == config_json(OF.tiny)["text_config"]["vocab_size"]
    )
    assert not mplug_owl.recognises({"model_type": "mplug_owl2"})
