"""MiniGPT-4's checkpoint in four places: names, what is left out, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.description import described
from models.minigpt4 import STOP, SYSTEM, published, save

from kosmos_edge import _core
from kosmos_edge.convert import convert, verify
from kosmos_edge.convert.models import MODELS, find_model
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

OF = described()["minigpt4"]
TOWER, BRIDGE, PRODUCT = "eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth", "pretrained_minigpt4_7b.pth"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OF.write_checkpoint(tmp_path_factory.mktemp("minigpt4") / "parts")


def contents(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """-> (metadata without what tells of the source's files, tensors)"""
    file = _core.GgufFile(str(path))
    metadata = {key: value for key, value in file.metadata().items() if not key.endswith("source.sha256")}
    return metadata, {name: file.tensor_data(name) for name, *_ in file.tensors()}


def test_its_row() -> None:
    assert find_model({"model_type": "minigpt4"}) is MODELS["minigpt4"]


def test_the_file_is_what_the_engine_reads(checkpoint: Path, tmp_path: Path) -> None:
    path = convert(checkpoint, tmp_path / "a.gguf", type="f32").output
    metadata, tensors = contents(path)
    assert tensors == {name: array.tobytes() for name, array in OF.tiny.weights.items()} and verify(path) == []
    expected = {
        "minigpt4.context_length": 512, "minigpt4.qformer.query_count": 32, "minigpt4.image.token_id": 0,
        "minigpt4.generation.stop": STOP, "minigpt4.generation.max_new_tokens": 256,
        "minigpt4.prompt.system": SYSTEM,
        "minigpt4.prompt.question": "###Human: <Img>{image}</Img> {question}###Assistant: ",
        "clip.use_gelu": True, "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.space_prefix_every_segment": True, "tokenizer.ggml.space_prefix_before_space": True,
    }  # fmt: skip
    expected["minigpt4.qformer.query_count"] = OF.tiny.metadata["minigpt4.qformer.query_count"][1]
    assert {key: metadata[key] for key in expected} == expected
    assert metadata["minigpt4.generation.repetition_penalty"] == np.float32(1.05)
    assert metadata["minigpt4.vision.post_norm_epsilon"] == np.float32(1e-5)
    assert metadata["clip.vision.attention.layer_norm_epsilon"] == np.float32(1e-6)
    assert metadata["minigpt4.qformer.attention.layer_norm_epsilon"] == np.float32(1e-12)
    sources = [text.partition(":")[0] for text in _core.GgufFile(str(path)).metadata()["minigpt4.source.sha256"]]
    assert {TOWER, BRIDGE, PRODUCT, "config.json", "vicuna/config.json", "vicuna/model.safetensors"} <= set(sources)


def test_keys_of_the_tower_have_no_biases(checkpoint: Path, tmp_path: Path) -> None:
    _, tensors = contents(convert(checkpoint, tmp_path / "a.gguf", type="f32").output)
    assert not any(tensors["v.blk.1.attn_k.bias"]) and any(tensors["v.blk.1.attn_q.bias"])
    whole = published(OF.tiny.weights)[0]["blocks.1.attn.qkv.weight"]
    assert b"".join(tensors[f"v.blk.1.attn_{part}.weight"] for part in "qkv") == whole.tobytes()


def test_sizes_are_the_published_ones_where_no_config_says_others(checkpoint: Path, tmp_path: Path) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other")
    (other / "config.json").unlink()
    with pytest.raises(ModelCorrupt, match=r"\(1408, 3, 14, 14\)|\(1408,\)|1408"):
        convert(other, tmp_path / "a.gguf")


Change = Callable[[Path], object]


def rewrite(name: str, number: int, change: Callable[[dict[str, np.ndarray]], object], inner: bool = True) -> Change:
    """Changes the state of one file."""

    def run(folder: Path) -> None:
        state = dict(published(OF.tiny.weights)[number])
        change(state)
        save(folder / name, state, inner)

    return run


def config(folder: Path, **changes: Any) -> None:
    file = folder / "vicuna" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


WRONG: dict[str, tuple[Change, type[Exception], str]] = {
    "no language model": (lambda f: shutil.rmtree(f / "vicuna"), ModelNotFound, "no folder .*vicuna"),
    "no Q-Former": (
        lambda f: (f / BRIDGE).unlink(),
        ModelNotFound,
        "beside eva_vit_g.pth there are pretrained_minigpt4_7b.pth; expected",
    ),
    "no product": (
        lambda f: (f / PRODUCT).unlink(),
        ModelNotFound,
        "there are blip2_pretrained_flant5xxl.pth; expected",
    ),
    "two products": (lambda f: shutil.copy(f / PRODUCT, f / "b.pth"), ModelNotFound, r"b\.pth, blip2_pretrained"),
    "no queries": (
        rewrite(BRIDGE, 1, lambda s: s.pop("query_tokens")),
        ModelCorrupt,
        "neither blip2_pretrained_flant5xxl.pth nor pretrained_minigpt4_7b.pth has the Q-Former's",
    ),
    "no model inside": (rewrite(BRIDGE, 1, lambda s: None, inner=False), ModelCorrupt, "expected a dict with the tens"),
    "LoRA": (
        rewrite(PRODUCT, 2, lambda s: s.update({"llama_model.lora_A.weight": np.ones((4, 4))})),
        ModelCorrupt,
        r"3 tensors, expected llama_proj\.weight and llama_proj\.bias alone: it changes the language model",
    ),
    "a product without bias": (
        rewrite(PRODUCT, 2, lambda s: s.pop("llama_proj.bias")),
        ModelCorrupt,
        "1 tensors, expected llama_proj",
    ),
    "no Q-Former for this product": (
        rewrite(PRODUCT, 2, lambda s: s.update({"llama_proj.weight": np.ones((256, 1408))})),
        ModelCorrupt,
        r"language_projection\.weight has the shape \(256, 1408\), expected \(256, 256\)",
    ),
    "a tower without norm": (
        rewrite(BRIDGE, 1, lambda s: s.pop("ln_vision.bias")),
        ModelCorrupt,
        r"post_layernorm\.bias .* is missing",
    ),
    "no bias of queries": (
        rewrite(TOWER, 0, lambda s: s.pop("blocks.0.attn.q_bias"), inner=False),
        ModelCorrupt,
        r"layers\.0\.self_attn\.q\.bias .* is missing",
    ),
    "another decoder": (lambda f: config(f, model_type="opt"), ModelCorrupt, "model_type is 'opt', expected 'llama'"),
    "more tokens than rows": (lambda f: config(f, vocab_size=9), ModelCorrupt, "tokens, the embedding has 9 rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_supported_is_named(checkpoint: Path, tmp_path: Path, case: str) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "m")
    change, error, message = WRONG[case]
    change(folder)
    with pytest.raises(error, match=message):
        convert(folder, tmp_path / "a.gguf")


def test_a_misshapen_tensor_is_said_with_its_file(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "m")
    rewrite(PRODUCT, 2, lambda s: s.update({"llama_proj.weight": np.ones((256, 1408))}))(folder)
    with pytest.raises(ModelCorrupt, match=rf"^{folder / PRODUCT}: 1 tensors do not fit"):
        convert(folder, tmp_path / "a.gguf")


def test_names_of_the_files_do_not_matter(checkpoint: Path, tmp_path: Path) -> None:
    """The authors' own differ from one size to the next."""
    folder = shutil.copytree(checkpoint, tmp_path / "m")
    (folder / BRIDGE).rename(folder / "z.pth")
    (folder / PRODUCT).rename(folder / "prerained_minigpt4_13b.pth")
    a = convert(checkpoint, tmp_path / "a.gguf").output
    assert contents(a) == contents(convert(folder, tmp_path / "b.gguf").output)


def test_a_file_that_would_run_code_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "m")
    (folder / PRODUCT).write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(ModelCorrupt, match="bare pickle"):
        convert(folder, tmp_path / "a.gguf")
