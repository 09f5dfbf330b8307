"""A Q-Former that reads text beside its queries, against its definition in NumPy; what its file must hold."""

from pathlib import Path

import numpy as np
import pytest
from helpers.cuda_emulated import use_cuda
from helpers.golden_cases import relative_error
from helpers.reference import attention, gelu, layer_norm
from helpers.tiny import GgufContent, encode_tensor, make_weight, write_gguf

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

WIDTH, FF, FEATURES, OUT, QUERIES, VOCAB, POSITIONS = 128, 192, 96, 64, 6, 40, 16
SHAPE = {
    "width": WIDTH, "ff_width": FF, "heads": 2, "layers": 3, "queries": QUERIES, "cross_every": 2, "eps": 1e-12,
    "post_norm": True, "feature_width": FEATURES, "project_width": OUT, "text_vocab": VOCAB,
    "text_positions": POSITIONS,
}  # fmt: skip
TEXT = [3, 17, 17, 0, 39, 5]
Weights = dict[str, np.ndarray]


def weights(seed: int = 2) -> Weights:
    """By GGUF name."""
    shapes: dict[str, tuple[int, ...]] = {
        "mm.query": (QUERIES, WIDTH), "mm.token_embd.weight": (VOCAB, WIDTH),
        "mm.position_embd.weight": (POSITIONS, WIDTH),
    }  # fmt: skip
    parts = {"mm.query_norm": (WIDTH,), "mm.0": (OUT, WIDTH)}
    for i in range(3):
        b = f"mm.blk.{i}."
        parts |= {b + f"attn_{x}": (WIDTH, WIDTH) for x in ("q", "k", "v", "output")} | {b + "attn_norm": (WIDTH,)}
        for ffn in [b] if i == 2 else [b, b + "text."]:
            parts |= {ffn + "ffn_up": (FF, WIDTH), ffn + "ffn_down": (WIDTH, FF), ffn + "ffn_norm": (WIDTH,)}
        if i != 1:
            parts |= {b + f"cross.attn_{x}": (WIDTH, WIDTH) for x in ("q", "output")}
            parts |= {b + f"cross.attn_{x}": (WIDTH, FEATURES) for x in "kv"} | {b + "cross.attn_norm": (WIDTH,)}
    for name, shape in parts.items():
        shapes |= {name + ".weight": shape, name + ".bias": shape[:1]}
    return {name: make_weight("mm.latent_query" if name == "mm.query" else name, s, seed) for name, s in shapes.items()}


def definition(w: Weights, features: np.ndarray, text: list[int]) -> np.ndarray:
    """transformers' InstructBlipQFormerModel and language_projection."""

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return layer_norm(x, w[name + ".weight"], w[name + ".bias"], 1e-12)

    def attend(x: np.ndarray, seen: np.ndarray, b: str) -> np.ndarray:
        found = attention(linear(x, b + "attn_q"), linear(seen, b + "attn_k"), linear(seen, b + "attn_v"), 2)
        return norm(linear(found, b + "attn_output") + x, b + "attn_norm")

    def feed_forward(x: np.ndarray, b: str) -> np.ndarray:
        return norm(linear(gelu(linear(x, b + "ffn_up")), b + "ffn_down") + x, b + "ffn_norm")

    words = w["mm.token_embd.weight"][text] + w["mm.position_embd.weight"][: len(text)]
    x = norm(np.concatenate([w["mm.query"], words]), "mm.query_norm")
    for i in range(3):
        b = f"mm.blk.{i}."
        x = attend(x, x, b)
        queries, words = x[:QUERIES], x[QUERIES:]
        if i % 2 == 0:
            queries = attend(queries, features, b + "cross.")
        queries = feed_forward(queries, b)
        x = np.concatenate([queries, feed_forward(words, b + "text.")]) if i < 2 else queries
    return linear(x, "mm.0")


def save(path: Path, tensors: Weights, dtype: str = "F32") -> Path:
    write_gguf(path, GgufContent({}, {name: encode_tensor(name, array, dtype) for name, array in tensors.items()}))
    return path


def forward(path: Path, features: np.ndarray, text: list[int], **options: object) -> np.ndarray:
    got = _core.testing.Qformer(str(path), SHAPE, **options).forward(features.tobytes(), text)
    return np.frombuffer(got, np.float32).reshape(QUERIES, OUT)


def features(rows: int = 11) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, FEATURES)).astype(np.float32)


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("text", [[], TEXT[:1], TEXT, [7] * POSITIONS], ids=len)
def test_rows_are_those_of_the_definition(isa: str, text: list[int], tmp_path: Path) -> None:
    w = weights()
    path = save(tmp_path / "a.gguf", w)
    for rows in (11, 4):
        assert relative_error(forward(path, features(rows), text, isa=isa), definition(w, features(rows), text)) < 1e-5


def test_texts_matter_and_leave_nothing_behind(tmp_path: Path) -> None:
    """Order, too; and one call after the other gives what it gives alone."""
    path = save(tmp_path / "a.gguf", weights())
    qformer = _core.testing.Qformer(str(path), SHAPE)
    seen = features().tobytes()
    texts = [TEXT, TEXT[::-1], [], TEXT[:2], TEXT]
    found = [qformer.forward(seen, text) for text in texts]
    assert len(set(found[:4])) == 4 and found[0] == found[4]
    assert found[2] == forward(path, features(), []).tobytes()


def test_on_a_cuda_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    w = weights()
    path = save(tmp_path / "a.gguf", w)
    assert relative_error(forward(path, features(), TEXT, device="cuda"), definition(w, features(), TEXT)) < 1e-4


@pytest.mark.parametrize(
    "name",
    ["mm.query", "mm.token_embd.weight", "mm.blk.1.text.ffn_up.bias", "mm.blk.2.cross.attn_k.weight", "mm.0.bias"],
)
def test_a_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.gguf", {n: w for n, w in weights().items() if n != name})
    with pytest.raises(ModelCorrupt, match=name.replace(".", r"\.")):
        forward(path, features(), TEXT)


@pytest.mark.parametrize("name", ["mm.blk.2.text.ffn_up.weight", "mm.blk.1.cross.attn_q.weight"])
def test_what_nothing_computes_with_is_no_part_of_a_file(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.gguf", weights() | {name: np.ones((FF, WIDTH), np.float32)})
    with pytest.raises(ModelCorrupt, match=name.replace(".", r"\.")):
        forward(path, features(), TEXT)
