"""Decoders and towers of many shapes: what their files must hold, what a device makes of them, what a cache keeps."""

from pathlib import Path

import numpy as np
import pytest
from helpers.cuda_emulated import use_cuda
from helpers.tiny import GgufContent, encode_tensor, make_weight, write_gguf

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

VOCAB, CONTEXT, WIDTH, FF = 90, 32, 256, 512
LLAMA = {
    "width": WIDTH, "ff_width": FF, "heads": 4, "kv_heads": 2, "head_dim": 64, "norm": "rms", "norm_bias": False,
    "bias": False, "activation": "silu", "gated": True, "layers": 2, "vocab": VOCAB, "context": CONTEXT,
    "position": "rope", "dims": 64, "tied_output": False,
}  # fmt: skip
OPT = {
    "width": WIDTH, "ff_width": FF, "heads": 4, "activation": "relu", "layers": 2, "vocab": VOCAB, "context": CONTEXT,
    "position": "learned", "offset": 2, "post_norm": True, "final_norm": False,
}  # fmt: skip
FLAMINGO = {
    **LLAMA, "layers": 4,
    "cross": {
        "width": WIDTH, "ff_width": FF, "heads": 4, "kv_heads": 1, "bias": False, "activation": "gelu_erf", "every": 2,
        "first": 1, "memory_width": 256,
    },
}  # fmt: skip
MPT = {
    "width": WIDTH, "ff_width": FF, "heads": 4, "norm_bias": False, "bias": False, "qk_norm": True, "layers": 2,
    "vocab": VOCAB, "context": CONTEXT, "position": "alibi", "most": 8.0,
}  # fmt: skip
SHAPES = {"llama": LLAMA, "opt": OPT, "flamingo": FLAMINGO, "mpt": MPT}
TOWER = {
    "width": WIDTH, "ff_width": FF, "heads": 4, "patches": 9, "patch_values": 48, "layers": 2, "class_token": False,
    "patch_bias": True, "pre_norm": False, "activation": "gelu_tanh", "project_width": 64, "products": 2,
}  # fmt: skip
IDS = [5, 80, 3, 3, 41, 7, 0, 89]


def block_tensors(prefix: str, shape: dict, names: tuple[str, str, str]) -> dict[str, tuple[int, ...]]:
    """The tensors of one block, by the rules of csrc/layers/block.h."""
    attn_norm, ffn_norm, attn_output = names
    kv = shape.get("kv_heads", shape["heads"]) * 64
    linears = {"attn_q": (WIDTH, WIDTH), "attn_k": (kv, WIDTH), "attn_v": (kv, WIDTH), attn_output: (WIDTH, WIDTH)}
    linears |= {"ffn_up": (FF, WIDTH), "ffn_down": (WIDTH, FF)}
    if shape.get("gated"):
        linears["ffn_gate"] = (FF, WIDTH)
    out: dict[str, tuple[int, ...]] = {f"{prefix}{name}.weight": rows for name, rows in linears.items()}
    if shape.get("bias", True):
        out |= {f"{prefix}{name}.bias": rows[:1] for name, rows in linears.items()}
    if shape.get("qk_norm"):
        out |= {f"{prefix}attn_q_norm.weight": (WIDTH,), f"{prefix}attn_k_norm.weight": (kv,)}
    for norm in (attn_norm, ffn_norm):
        out[f"{prefix}{norm}.weight"] = (WIDTH,)
        if shape.get("norm_bias", True):
            out[f"{prefix}{norm}.bias"] = (WIDTH,)
    return out


def decoder_tensors(shape: dict) -> dict[str, tuple[int, ...]]:
    """Those of a decoder."""
    out: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, WIDTH)}
    for i in range(shape["layers"]):
        out |= block_tensors(f"blk.{i}.", shape, ("attn_norm", "ffn_norm", "attn_output"))
    if shape["position"] == "learned":
        out["position_embd.weight"] = (CONTEXT + shape["offset"], WIDTH)
    if shape.get("final_norm", True):
        out["output_norm.weight"] = (WIDTH,)
    if not shape.get("tied_output", True):
        out["output.weight"] = (VOCAB, WIDTH)
    for i in (1, 3) if "cross" in shape else ():
        out |= block_tensors(f"blk.{i}.cross.", shape["cross"], ("attn_norm", "ffn_norm", "attn_output"))
        out |= {f"blk.{i}.cross.{part}_alpha": (1,) for part in ("attn", "ffn")}
        out |= {f"blk.{i}.cross.attn_{part}.weight": (64, 256) for part in "kv"}
    return out


def tower_tensors() -> dict[str, tuple[int, ...]]:
    """Those of TOWER."""
    out: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (WIDTH, 3, 4, 4), "v.patch_embd.bias": (WIDTH,), "v.position_embd.weight": (9, WIDTH),
        "v.post_ln.weight": (WIDTH,), "v.post_ln.bias": (WIDTH,), "mm.0.weight": (64, WIDTH), "mm.0.bias": (64,),
        "mm.2.weight": (64, 64), "mm.2.bias": (64,),
    }  # fmt: skip
    for i in range(2):
        out |= block_tensors(f"v.blk.{i}.", TOWER, ("ln1", "ln2", "attn_out"))
    return out


def save(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F32", quantized: str = "") -> str:
    """A file with drawn values; `quantized`: the one matrix that is stored as Q8_0."""
    tensors = {
        name: encode_tensor(name, make_weight(name, shape, 3), "Q8_0" if name == quantized else dtype)
        for name, shape in shapes.items()
    }
    write_gguf(path, GgufContent({}, tensors))
    return str(path)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_a_shape_does_not_have_is_no_part_of_its_file(shape: dict, tmp_path: Path) -> None:
    """Biases, betas, gates and outputs are asked for by the shape: one too few or too many is named."""
    tensors = decoder_tensors(shape)
    _core.testing.Decoder(save(tmp_path / "whole", tensors), shape)
    for name in tensors:
        less = {n: s for n, s in tensors.items() if n != name}
        with pytest.raises(ModelCorrupt, match=f"tensor {name} is missing"):
            _core.testing.Decoder(save(tmp_path / "less", less), shape)
    for name in ("blk.0.attn_sub_norm.weight", "output.bias", "blk.1.attn_q.scale"):
        with pytest.raises(ModelCorrupt, match=f"no part of this model: {name}"):
            _core.testing.Decoder(save(tmp_path / "more", {**tensors, name: (WIDTH,)}), shape)


def test_a_cache_is_float16_where_any_matrix_of_the_blocks_is_quantized(tmp_path: Path) -> None:
    """The embedding and the output do not count; files of floats alone keep float32."""
    tensors = decoder_tensors(LLAMA)

    def cache_bytes(name: str, dtype: str = "F32") -> int:
        return _core.testing.Decoder(save(tmp_path / "x", tensors, dtype, name), LLAMA).cache_bytes

    whole = cache_bytes("")
    assert cache_bytes("token_embd.weight") == cache_bytes("output.weight") == cache_bytes("", "F16") == whole
    for name in ("blk.0.attn_k.weight", "blk.1.ffn_down.weight", "blk.0.ffn_gate.weight", "blk.1.attn_output.weight"):
        assert cache_bytes(name) * 2 == whole


@pytest.mark.parametrize("vocab_subset", [[0], [1, 44, 89]])
def test_some_outputs_without_a_last_norm(vocab_subset: list[int], tmp_path: Path) -> None:
    """The logits of a few tokens are those of all."""
    decoder = _core.testing.Decoder(save(tmp_path / "x", decoder_tensors(OPT), "Q8_0"), OPT)
    whole = np.frombuffer(decoder.forward(IDS, 0, [2, 7]), np.float32).reshape(2, VOCAB)
    decoder.restart()
    some = np.frombuffer(decoder.forward(IDS, 0, [2, 7], vocab_subset=vocab_subset), np.float32)
    np.testing.assert_array_equal(some.reshape(2, -1), whole[:, vocab_subset])


@pytest.mark.parametrize("dtype", ["F32", "Q4_K", "Q8_0"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_decoders_on_a_cuda_device(shape: dict, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor's answers, rows of vectors on the device included."""
    use_cuda(monkeypatch)
    path = save(tmp_path / "x", decoder_tensors(shape), dtype)
    vectors, seen = make_weight("image.vectors", (2, WIDTH), 1), [-1, -1, 0, 0, 0, 1, 1, 1] if "cross" in shape else []
    answers = []
    for device in ("cpu", "cuda"):
        decoder = _core.testing.Decoder(path, shape, device)
        for image in (0, 1) if seen else ():
            assert decoder.remember(make_weight(f"image.{image}", (11, 256), 2)) == image
        first = decoder.forward([*IDS[:4], -1, -1, *IDS[6:]], 0, [1, 7], vectors, True, memories=seen)
        second = decoder.forward([17], 8, [0], memories=seen[7:])
        answers.append(np.frombuffer(first + second, np.float32))
    assert np.isfinite(answers[0]).all()
    if _core.isa() == "scalar":
        np.testing.assert_allclose(answers[1], answers[0], rtol=1e-3, atol=1e-4)
    else:
        np.testing.assert_array_equal(answers[1], answers[0])


def test_a_tower_on_a_cuda_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No class token, patches with a bias, a projector of two products."""
    use_cuda(monkeypatch)
    path = save(tmp_path / "x", tower_tensors())
    patches = np.random.default_rng(0).standard_normal((9, 48)).astype(np.float32)
    cpu, cuda = (
        np.frombuffer(_core.testing.Tower(path, TOWER, device).forward(patches), np.float32)
        for device in ("cpu", "cuda")
    )
    assert cpu.shape == (9 * 64,) and np.isfinite(cpu).all()
    np.testing.assert_allclose(cuda, cpu, rtol=1e-5, atol=1e-6)
