"""Small random OpenFlamingo checkpoints with an MPT of either kind become one GGUF file; what is not supported is
named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.description import described
from models.openflamingo import write_parts
from models.openflamingo_mpt import A, config_of, published

from kosmos_edge import _core
from kosmos_edge.convert import convert, verify
from kosmos_edge.convert.models import MODELS, find_model
from kosmos_edge.errors import ModelCorrupt

OF = described()[A]
WTE, HEAD = "transformer.wte.weight", "lm_head.weight"


def write(folder: Path, first: bool = False, config: dict[str, Any] | None = None, **language: Any) -> Path:
    """A checkpoint; other settings and tensors of the language model (dots as __)."""
    trained, own, tower = published(OF.tiny.weights, first)
    own |= {name.replace("__", "."): w for name, w in language.items()}
    write_parts(folder, trained, own, tower, config or config_of(first))
    return folder


def test_its_row() -> None:
    """The language model says which OpenFlamingo it is."""
    outer = {"model_type": "openflamingo", "cross_attn_every_n_layers": 1}
    for kind in ("mpt", "mosaic_gpt"):
        assert find_model({**outer, "lang_encoder": {"model_type": kind}}) is MODELS[A]
    assert find_model({**outer, "lang_encoder": {"model_type": "gpt_neox"}}) is MODELS["openflamingo"]
    assert find_model(outer) is MODELS["openflamingo"]


@pytest.mark.parametrize("first", [False, True])
def test_every_value_has_its_place(first: bool, tmp_path: Path) -> None:
    """Queries, keys and values lie behind each other; the first MPT's modules have other names."""
    file = _core.GgufFile(str(convert(write(tmp_path / "m", first), tmp_path / "a.gguf", type="f32").output))
    found = {name: file.tensor_data(name) for name, *_ in file.tensors()}
    assert found == {name: w.tobytes() for name, w in OF.tiny.weights.items()}
    own = {key.removeprefix(f"{A}."): value for key, value in file.metadata().items()}
    expected = {
        "context_length": 512, "embedding_length": 256, "block_count": 4, "feed_forward_length": 512,
        "attention.head_count": 4, "attention.max_alibi_bias": 8.0, "attention.qk_norm": True,
        "cross_attention.every": 2, "prompt.caption": "{image}Output:", "general.license": "mit",
    }  # fmt: skip
    assert {key: own[key] for key in expected} == expected
    assert verify(tmp_path / "a.gguf") == []


def test_an_output_matrix_must_be_the_embedding(tmp_path: Path) -> None:
    """transformers may save it twice."""
    _, language, _ = published(OF.tiny.weights)
    same = {HEAD.replace(".", "__"): language[WTE]}
    a, b = (
        _core.GgufFile(str(convert(folder, tmp_path / f"{i}.gguf", type="f32").output))
        for i, folder in enumerate((write(tmp_path / "m"), write(tmp_path / "n", **same)))
    )
    assert [t[:4] for t in a.tensors()] == [t[:4] for t in b.tensors()]
    other = {HEAD.replace(".", "__"): language[WTE] + 1}
    with pytest.raises(ModelCorrupt, match=r"lm_head.weight is not the embedding, transformer.wte.weight"):
        convert(write(tmp_path / "o", **other), tmp_path / "c.gguf")


def attention(**changes: Any) -> dict[str, Any]:
    """config.json with another attn_config."""
    return config_of(attn_config=config_of()["attn_config"] | changes)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "clamped": (attention(clip_qkv=8), "attn_config.clip_qkv is 8, expected none"),
    "clamped, first": (config_of(True, attn_clip_qkv=6), "attn_clip_qkv is 6, expected none"),
    "a scale": (attention(softmax_scale=0.1), "attn_config.softmax_scale is 0.1, expected none"),
    "positions": (attention(alibi=False), "attn_config.alibi is False, expected true"),
    "positions by default": (attention(alibi=None), "attn_config.alibi is None, expected true"),
    "one head of keys": (attention(attn_type="multiquery_attention"), "attn_type is 'multiquery_attention'"),
    "a prefix": (attention(prefix_lm=True), "attn_config.prefix_lm is True, expected False"),
    "scaled logits": (config_of(logit_scale="inv_sqrt_d_model"), "logit_scale is 'inv_sqrt_d_model', expected none"),
    "biases": (config_of(no_bias=False), "no_bias is False, expected true"),
    "biases by default": (config_of(True, no_bias=None), "no_bias is None, expected true"),
    "other norms": (config_of(norm_type="rmsnorm"), "norm_type is 'rmsnorm', expected 'low_precision_layernorm'"),
    "odd heads": (config_of(n_heads=7), "d_model is 256, expected a multiple of 7 heads"),
    "no norms of queries": (attention(qk_ln=False), "attn.q_ln.weight .* is not a tensor of"),
    "few blocks": (config_of(n_layers=1), "1 blocks, expected at least cross_attn_every_n_layers, 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_supported_is_named(tmp_path: Path, case: str) -> None:
    config, message = WRONG[case]
    with pytest.raises(ModelCorrupt, match=message):
        convert(write(tmp_path / "m", "first" in case or config["model_type"] != "mpt", config), tmp_path / "a.gguf")


def test_a_fused_matrix_of_another_height_is_named(tmp_path: Path) -> None:
    name = "transformer__blocks__0__attn__Wqkv__weight"
    with pytest.raises(ModelCorrupt, match=r"Wqkv.weight has the shape \(700, 256\), expected a multiple of 3 rows"):
        convert(write(tmp_path / "m", **{name: np.ones((700, 256), np.float32)}), tmp_path / "a.gguf")
