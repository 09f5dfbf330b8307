"""The CUDA backend on the processor (tests/emulate): kernels and host code, block by block, thread by thread.

Sums have the order of the CPU's kernels, so results are compared bit by bit where the CPU has fused multiply-adds.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.cuda_emulated import CARD, EmulatedDevice, lend_device, use_cuda
from helpers.ops_reference import f32, floats, heavy
from helpers.tiny import TinyConfig, make_picture, write_tiny

from kosmos_edge import _core
from kosmos_edge.errors import DeviceUnavailable

EXACT = _core.isa() != "scalar"  # whose multiply-adds round twice
ACTIVATIONS = ["none", "gelu_erf", "quick_gelu", "relu", "gelu_tanh", "silu"]
TYPES = [
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_NL",
    "IQ4_XS",
    "Q8_0",
    "Q4_0",
    "Q5_0",
    "Q4_1",
    "F16",
    "BF16",
    "F32",
]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Path:
    """See use_cuda."""
    return use_cuda(monkeypatch)


@pytest.fixture
def device(cuda: Path) -> Iterator[EmulatedDevice]:
    """See lend_device."""
    yield from lend_device(cuda)


@pytest.fixture
def both(cuda: Path):
    """Single operations on the CPU and on the device."""
    return [_core.testing.Ops("", 1), _core.testing.Ops("", 1, "cuda")]


def same(got: bytes, want: bytes) -> bool:
    """The same values (zeros of either sign), or where the CPU's own sums round otherwise nearly."""
    a, b = np.frombuffer(got, np.float32), np.frombuffer(want, np.float32)
    return np.array_equal(a, b) if EXACT else np.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("m,rows,cols", [(1, 70, 256), (3, 33, 512), (9, 40, 1024), (37, 90, 512), (2, 17, 2048)])
def test_products(both, dtype: str, m: int, rows: int, cols: int) -> None:
    """Every type, few and many rows, rows of weights that fill no panel, with norm, bias, activation and residual."""
    rng = np.random.default_rng(m * rows)
    data = _core.quantize(dtype, f32(rng.standard_normal((rows, cols))), row_length=cols)
    gamma, beta = f32(rng.standard_normal(cols)), f32(rng.standard_normal(cols))
    norm, act = (gamma, beta, 1e-5), ["none", "gelu_erf", "quick_gelu"][m % 3]
    x, bias, residual = heavy(rng, m, cols), f32(rng.standard_normal(rows)), f32(rng.standard_normal((m, rows)))
    want, got = (ops.linear([(dtype, data, rows)], cols, x, m, bias, act, residual, norm, m % 4) for ops in both)
    if dtype != "Q4_1":
        assert same(got, want)
        norm, act = (gamma, None, 1e-5, "rms"), {1: "relu", 2: "gelu_tanh", 3: "silu", 9: "silu", 37: "gelu_tanh"}[m]
        want, got = (ops.linear([(dtype, data, rows)], cols, x, m, bias, act, None, norm, m % 4) for ops in both)
        assert same(got, want)
    else:  # float weights on the device, products of codes on the CPU
        error = np.abs(floats(got, m, rows) - floats(want, m, rows)).max() / np.abs(floats(want, m, rows)).max()
        assert error < 0.04


@pytest.mark.parametrize("dtype", ["F32", "F16", "Q8_0"])
def test_rows_of_odd_lengths(both, dtype: str) -> None:
    """Lengths that are no multiple of a block; quantized ones are decoded for the device."""
    rng = np.random.default_rng(5)
    cols = 588 if dtype != "Q8_0" else 96
    data = _core.quantize(dtype, f32(rng.standard_normal((19, cols))), row_length=cols)
    x = heavy(rng, 11, cols)
    want, got = (
        floats(ops.linear([(dtype, data, 19)], cols, x, 11, None, "none", None, None, 3), 11, 19) for ops in both
    )
    if dtype == "Q8_0":
        assert np.abs(got - want).max() < 0.02 * np.abs(want).max()
    else:
        assert same(got.tobytes(), want.tobytes())


def test_stacked_parts_of_several_types(both) -> None:
    """Queries, keys and values of their own types are one product."""
    rng = np.random.default_rng(6)
    parts = [
        (t, _core.quantize(t, f32(rng.standard_normal((n, 256))), row_length=256), n)
        for t, n in [("Q4_K", 24), ("Q4_K", 24), ("Q6_K", 24), ("F32", 5)]
    ]
    x, bias = heavy(rng, 2, 256), f32(rng.standard_normal(77))
    want, got = (ops.linear(parts, 256, x, 2, bias, "none", None, None, 0) for ops in both)
    assert same(got, want)


def test_a_row_has_the_same_bits_in_any_batch(both) -> None:
    """Few rows take another kernel than many: the tensor cores' emulation gives the bits of single products."""
    rng = np.random.default_rng(7)
    for dtype in ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "Q8_0", "Q4_0", "F16"]:
        data = _core.quantize(dtype, f32(rng.standard_normal((50, 512))), row_length=512)
        x = heavy(rng, 33, 512)
        all_rows = floats(both[1].linear([(dtype, data, 50)], 512, x, 33, None, "none", None, None, 0), 33, 50)
        for r in (0, 20, 32):
            one = both[1].linear([(dtype, data, 50)], 512, f32(x[r]), 1, None, "none", None, None, 0)
            assert one == all_rows[r].tobytes(), dtype


def test_some_outputs_only(both) -> None:
    """The logits of a few tokens are those of all."""
    rng = np.random.default_rng(8)
    data = _core.quantize("Q6_K", f32(rng.standard_normal((300, 256))), row_length=256)
    x, gamma, beta = heavy(rng, 2, 256), f32(rng.standard_normal(256)), f32(rng.standard_normal(256))
    outputs = [0, 3, 255, 299]
    want, got = (
        ops.norm_linear_rows([("Q6_K", data, 300)], 256, x, 2, (gamma, beta, 1e-5), outputs, False) for ops in both
    )
    assert same(got, want)


@pytest.mark.parametrize("cols", [1, 15, 64, 200, 1029])
def test_row_operations(both, cols: int) -> None:
    """Norms, lengths, sums and copies of rows that are further apart than wide."""
    rng = np.random.default_rng(cols)
    x, y = heavy(rng, 5, cols), f32(rng.standard_normal((5, cols)))
    gamma, beta = f32(rng.standard_normal(cols)), f32(rng.standard_normal(cols))
    cpu, cuda = both
    for norm in ((gamma, beta, 1e-5), (gamma, None, 1e-5), (gamma, None, 1e-6, "rms"), (gamma, beta, 1e-6, "rms")):
        assert same(cuda.norm(x, 5, cols, norm), cpu.norm(x, 5, cols, norm))
    assert same(cuda.l2_normalize(x, 5, cols, 1e-12), cpu.l2_normalize(x, 5, cols, 1e-12))
    assert cuda.add(x, y, 5, cols) == cpu.add(x, y, 5, cols)
    assert cuda.copy(x, 5, cols) == cpu.copy(x, 5, cols)
    assert cuda.add_scaled(x, 0.37, y, 5, cols) == cpu.add_scaled(x, 0.37, y, 5, cols)
    halves = np.concatenate([x, y], axis=1)
    for act in ACTIVATIONS:
        assert same(cuda.gate(halves, act, 5, cols), cpu.gate(halves, act, 5, cols)), act


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("heads,dim,dims", [(2, 64, 64), (3, 80, 32), (1, 24, 6)])
def test_rotary_positions(both, heads: int, dim: int, dims: int, interleaved: bool) -> None:
    """Whole heads and parts of them."""
    rng = np.random.default_rng(dims)
    x, table = f32(rng.standard_normal((4, heads * dim))), f32(rng.standard_normal((9, dims)))
    want, got = (ops.rope(x, heads, dim, table, 9, dims, interleaved, [0, 8, 3, 3]) for ops in both)
    assert got == want


def test_embedded_rows(both) -> None:
    """Decoded on the host; rows of negative ids keep what they have."""
    rng = np.random.default_rng(4)
    y = f32(rng.standard_normal((5, 256)))
    table = ("Q4_K", _core.quantize("Q4_K", f32(rng.standard_normal((9, 256))), row_length=256), 9)
    want, got = (ops.embed_rows(table, 256, [8, -1, -1, 0, 8], 1.7, y, False) for ops in both)
    assert got == want and floats(got, 5, 256)[1:3].tobytes() == y[1:3].tobytes()


@pytest.mark.parametrize(
    "m,n,heads,dim,kv_heads",
    [
        (1, 1, 2, 64, 2),
        (17, 65, 3, 64, 1),
        (5, 140, 2, 16, 2),
        (3, 33, 1, 136, 1),
        (9, 60, 6, 88, 2),
        (6, 601, 2, 64, 1),
    ],
)
def test_attention(both, m: int, n: int, heads: int, dim: int, kv_heads: int) -> None:
    """All-to-all, tiles of queries and keys that are not full; more positions than four queries per warp leave room
    for; heads that share keys and values."""
    rng = np.random.default_rng(n)
    q, kv = f32(rng.standard_normal((m, heads * dim))), f32(rng.standard_normal((n, 2 * kv_heads * dim)))
    want, got = (ops.attention(q, kv, m, n, heads, dim, dim**-0.5, kv_heads=kv_heads) for ops in both)
    assert same(got, want)


@pytest.mark.parametrize("m,n,heads,dim", [(1, 1, 2, 64), (37, 37, 3, 16), (5, 140, 2, 64), (6, 601, 2, 64)])
def test_attention_with_a_bias_by_distance(both, m: int, n: int, heads: int, dim: int) -> None:
    """All-to-all, and the rows of a cache."""
    rng = np.random.default_rng(n)
    q, kv = f32(rng.standard_normal((m, heads * dim))), f32(rng.standard_normal((n, 2 * heads * dim)))
    bias = (f32(rng.standard_normal((heads, m + n - 1)) * 3), m + n - 1, m - 1)
    want, got = (ops.attention(q, kv, m, n, heads, dim, 0.3, bias=bias) for ops in both)
    assert same(got, want)
    assert n == 1 or not same(got, both[0].attention(q, kv, m, n, heads, dim, 0.3))
    rows = [(0, n - 1), (0, n // 2), (1, n - 1), (1, 0)]
    q, k, v = (f32(rng.standard_normal(shape)) for shape in ((4, heads * dim), *[(2, n, heads * dim)] * 2))
    bias = (f32(rng.standard_normal((heads, n)) * 3), n, n - 1)
    for half in (True, False):
        want, got = (
            ops.kv_attention(q, k, v, rows, 2, n, heads, dim, 0.3, half, 48, 2, False, bias=bias) for ops in both
        )
        assert same(got, want)


@pytest.mark.parametrize("kept", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("n,heads,dim,kv_heads", [(140, 2, 64, 2), (20, 3, 24, 3), (9, 1, 160, 1), (30, 6, 88, 2)])
def test_attention_over_caches(both, kept: str, copied: bool, n: int, heads: int, dim: int, kv_heads: int) -> None:
    """Rows of several caches, which grow while they are filled and may be copied piece by piece."""
    rng = np.random.default_rng(n)
    width, rows = kv_heads * dim, [(0, n - 1), (1, 0), (1, n // 2), (0, 3)]
    q = f32(rng.standard_normal((len(rows), heads * dim)))
    k, v = f32(rng.standard_normal((2, n, width))), f32(rng.standard_normal((2, n, width)))
    want, got = (
        ops.kv_attention(
            q, k, v, rows, 2, n, heads, dim, dim**-0.5, kept == "F16", 48, 2, copied, kv_heads,
            quantized=kept == "Q8_0",
        )
        for ops in both
    )  # fmt: skip
    assert same(got, want)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38, 1e5, 1e-33])
def test_extreme_keys_and_values_of_8_bits(both, bad: float) -> None:
    """What is not finite is not hidden; what float16 could not hold is."""
    rng = np.random.default_rng(2)
    q, k, v = (f32(rng.standard_normal(shape)) for shape in ((1, 128), (1, 40, 128), (1, 40, 128)))
    v[0, 30, 5] = bad
    for last in (20, 39):
        a, b = (
            floats(ops.kv_attention(q, k, v, [(0, last)], 1, 40, 2, 64, 0.1, False, 40, 1, False, quantized=True), 128)
            for ops in both
        )
        finite = np.isfinite(a)
        assert np.array_equal(finite, np.isfinite(b)) and same(b[finite].tobytes(), a[finite].tobytes())
        assert finite[32:].all() and finite.all() == (last == 20 or bad in (1e5, 1e-33))


SMALL = TinyConfig(
    layers=2, width=256, ff_width=512, heads=4, latents=8, vision_layers=1, vision_width=256, vision_ff_width=512,
    image_size=28, context=128,
)  # fmt: skip


def answer(path: Path, device: str, embedding: bytes | None = None):
    """Embedding, ids, log-probabilities and logits; from the embedding given, if any."""
    engine = _core.Engine(str(path), device=device)
    picture = make_picture(5, 90, 40)
    image = engine.encode_image(picture.tobytes(), 90, 40) if embedding is None else engine.restore_image(embedding)
    params = _core.GenerateParams()
    params.max_tokens, params.no_repeat_ngram_size, params.logprobs = 4, 3, True
    segments = [("image", image), ("ids", [5, 6, 7, 8, 300])]
    made = engine.generate(segments, params)
    logits, _, _ = engine.logits([*segments, ("ids", made.token_ids)])
    return image.tobytes(), made.token_ids, made.logprobs, logits, engine.device


@pytest.mark.parametrize("dtype", ["Q4_K", "Q6_K", "F32"])
def test_the_model_gives_the_processor_s_answers(cuda: Path, tmp_path: Path, dtype: str) -> None:
    """A whole tiny model: picture, prompt, tokens."""
    path = tmp_path / "tiny.gguf"
    write_tiny(path, dtype, seed=0, config=SMALL)
    image, ids, logprobs, logits, name = answer(path, "cpu")
    assert name == "cpu"
    theirs, *_ = answer(path, "cuda")
    a, b = np.frombuffer(theirs, np.float32), np.frombuffer(image, np.float32)
    assert np.abs(a - b).max() < (0.02 if dtype.startswith("Q") else 1e-4) * np.abs(b).max()
    _, their_ids, their_logprobs, their_logits, name = answer(path, "cuda", image)
    assert name == ("cuda:0" if CARD else "cuda-emulated:0")
    assert their_ids == ids
    if EXACT:
        assert their_logprobs == logprobs
        assert same(their_logits, logits)
    if not CARD:
        assert EmulatedDevice(cuda).bytes() == 0, "device memory that nobody frees"


def test_a_decoded_token_is_one_graph(device: EmulatedDevice, tmp_path: Path) -> None:
    """From the third on, tokens are one started graph each, and the answers are the processor's."""
    path = tmp_path / "tiny.gguf"
    write_tiny(path, "Q4_K", seed=3, config=SMALL)
    params = _core.GenerateParams()
    params.max_tokens, params.no_repeat_ngram_size, params.logprobs = 7, 0, True
    answers = []
    for name in ("cpu", "cuda"):
        engine, graphs, ends = _core.Engine(str(path), device=name), device.graphs(), []
        made = engine.generate([("ids", [5, 6, 300])], params, lambda *_: ends.append(device.graphs()))  # noqa: B023
        answers.append((made.token_ids, made.logprobs if EXACT else None))
        steps = [b - a for a, b in zip([graphs, *ends], ends, strict=False)]
        assert steps == ([0] * 7 if name == "cpu" else [0, 0, 1, 1, 1, 1, 1]), "prompt, then a pass, then graphs"
    assert answers[0] == answers[1]


def test_schedules_do_not_matter(device: EmulatedDevice, tmp_path: Path) -> None:
    """Blocks and threads in any order give the same bits."""
    path = tmp_path / "tiny.gguf"
    write_tiny(path, "Q4_K", seed=1, config=SMALL)
    in_order = answer(path, "cuda")
    for seed in (1, 77):
        device.seed(seed)
        assert answer(path, "cuda") == in_order


def test_a_library_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no backend is refused with the reason."""
    wrong = tmp_path / "libkosmos_edge_cuda.so"
    wrong.write_bytes(b"nothing")
    monkeypatch.setenv("KOSMOS_EDGE_CUDA_LIBRARY", str(wrong))
    assert "cannot be loaded" in dict(_core.devices())["cuda"]
    with pytest.raises(DeviceUnavailable, match="cannot be loaded"):
        _core.testing.make_backend("cuda", 1, "")
