"""Float64 references, error bounds and buffers for the tests of single operations.

u = 2^-24 is float32's unit roundoff. A sum of n float32 products added one after the other is off by at most about
n u sum |w x|; the kernels sum chunks of 128 and add the chunks' sums.
"""

import math

import numpy as np

U = 2.0**-24

FLOAT_TYPES = ["F32", "F16", "BF16"]
BLOCK32_TYPES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL"]
K_TYPES = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]  # integer scales within blocks of 256
IQ4_TABLE = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
I8 = "I8"  # Q6_K uploaded for many rows: 8-bit codes with one float32 scale per 256 values (csrc/cpu/repack_i8.cpp)


def floats(data: bytes, *shape: int) -> np.ndarray:
    return np.frombuffer(data, np.float32).reshape(shape)


def f32(x) -> np.ndarray:
    return np.ascontiguousarray(x, np.float32)


def heavy(rng, *shape) -> np.ndarray:
    """Activations with a few large ones, as vision towers have."""
    x = rng.standard_normal(shape)
    x[rng.random(shape) < 0.01] *= 30
    return f32(x)


def activation(name: str, x) -> np.ndarray:
    """The activations of csrc/backend/backend.h in float64."""
    x = np.asarray(x, np.float64)
    with np.errstate(over="ignore"):
        if name == "gelu_erf":
            return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
        if name == "gelu_tanh":
            return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        if name == "quick_gelu":
            return x / (1 + np.exp(-1.702 * x))
        if name == "silu":
            return x / (1 + np.exp(-x))
    return {"none": x, "relu": np.maximum(x, 0)}[name]


def rotate(x: np.ndarray, table: np.ndarray, positions: list[int], heads: int, interleaved: bool) -> np.ndarray:
    """x (rows, heads * d) with rotary positions, in x's own type; table: (positions, dims), cosines, then sines."""
    dims, rows = table.shape[1], len(positions)
    y = x.copy().reshape(rows, heads, -1)
    c, s = (a[positions][:, None, :] for a in (table[:, : dims // 2], table[:, dims // 2 :]))
    first = slice(0, dims, 2) if interleaved else slice(0, dims // 2)
    second = slice(1, dims, 2) if interleaved else slice(dims // 2, dims)
    a, b = y[..., first].copy(), y[..., second].copy()
    y[..., first], y[..., second] = a * c - b * s, b * c + a * s
    return y.reshape(rows, -1)


def dot_bound(terms: int, magnitude: np.ndarray) -> np.ndarray:
    """Largest error of a float32 dot product of `terms` products whose magnitudes sum to `magnitude`."""
    steps = min(terms, 128) + (terms + 127) // 128 + 4
    return 1.01 * steps * U * magnitude + 1e-35


def quantize_activations(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition: per block of 256 (else 32), scale = amax / 127, code = nearest(x * (127 / amax)), ties even."""
    rows, cols = x.shape
    block = 256 if cols % 256 == 0 else 32
    b = x.reshape(rows, cols // block, block)
    amax = np.abs(b).max(axis=2)
    live = amax >= np.float32(2.0**-100)
    safe = np.where(live, amax, np.float32(1))
    scale = np.where(live, safe / np.float32(127), np.float32(0)).astype(np.float32)
    inverse = np.where(live, np.float32(127) / safe, np.float32(0)).astype(np.float32)
    codes = np.rint(b * inverse[:, :, None]).astype(np.int8)
    return codes.reshape(rows, cols), scale


def _halves(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def _nibbles32(qs: np.ndarray) -> np.ndarray:
    """(..., 16) bytes -> (..., 32) values, low halves first."""
    return np.concatenate([qs & 15, qs >> 4], axis=-1)


def _scales6(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 12) bytes -> 8 scales and 8 mins of 6 bits."""
    a, b, c = p[..., 0:4], p[..., 4:8], p[..., 8:12]
    return (
        np.concatenate([a & 63, (c & 15) | (a >> 6) << 4], axis=-1),
        np.concatenate([b & 63, (c >> 4) | (b >> 6) << 4], axis=-1),
    )


def split_blocks(dtype: str, data: bytes, rows: int, cols: int) -> dict[str, np.ndarray]:
    """Codes (rows, cols) as stored (unsigned or signed by the type), and the type's scales, per row."""
    raw = np.frombuffer(data, np.uint8)
    if dtype == I8:
        w = split_blocks("Q6_K", data, rows, cols)
        v = (w["q"].reshape(rows, -1, 16, 16) * w["scale"][..., None]).reshape(rows, -1, 256)
        top = np.abs(v).max(axis=2).astype(np.float32)
        inverse = np.divide(np.float32(127), top, out=np.zeros_like(top), where=top > 0)
        q = np.rint(v.astype(np.float32) * inverse[..., None]).astype(np.int64)
        return {"q": q.reshape(rows, cols), "d": w["d"] * (top / np.float32(127))}
    if dtype in BLOCK32_TYPES:
        n = cols // 32
        b = raw.reshape(rows, n, -1)
        d = _halves(b[..., 0:2])[..., 0]
        if dtype == "Q8_0":
            return {"q": b[..., 2:].view(np.int8).astype(np.int64).reshape(rows, cols), "d": d}
        if dtype == "IQ4_NL":
            return {"q": IQ4_TABLE[_nibbles32(b[..., 2:])].reshape(rows, cols), "d": d}
        at, m = 2, None
        if dtype.endswith("_1"):
            m, at = _halves(b[..., 2:4])[..., 0], 4
        high = 0
        if dtype.startswith("Q5"):
            word = np.ascontiguousarray(b[..., at : at + 4]).view(np.uint32)
            high, at = (word >> np.arange(32, dtype=np.uint32) & 1).astype(np.int64) << 4, at + 4
        q = _nibbles32(b[..., at:]).astype(np.int64) | high
        if m is None:
            q -= 8 if dtype == "Q4_0" else 16
            return {"q": q.reshape(rows, cols), "d": d}
        return {"q": q.reshape(rows, cols), "d": d, "m": m}
    n = cols // 256
    b = raw.reshape(rows, n, -1)
    if dtype == "Q6_K":
        ql, qh = b[..., :128].reshape(rows, n, 2, 2, 32), b[..., 128:192].reshape(rows, n, 2, 1, 32)
        low = np.concatenate([ql & 15, ql >> 4], axis=3)  # (.., half, run, 32)
        high = qh >> (2 * np.arange(4, dtype=np.uint8))[:, None] & 3
        q = (low | high << 4).astype(np.int64) - 32
        scales = b[..., 192:208].view(np.int8).astype(np.int64)
        return {"q": q.reshape(rows, cols), "scale": scales, "d": _halves(b[..., 208:210])[..., 0]}
    if dtype == "Q3_K":
        hmask, qs, p = b[..., :32].reshape(rows, n, 1, 1, 32), b[..., 32:96].reshape(rows, n, 2, 1, 32), b[..., 96:108]
        runs = np.arange(8, dtype=np.uint8).reshape(2, 4, 1)
        q = (qs >> (2 * (runs % 4)) & 3).astype(np.int64) | (hmask >> runs & 1).astype(np.int64) << 2
        low = np.concatenate([p[..., :8] & 15, p[..., :8] >> 4], axis=-1)
        high = np.concatenate([p[..., 8:] >> at & 3 for at in (0, 2, 4, 6)], axis=-1)
        scales = (low | high << 4).astype(np.int64) - 32
        return {"q": q.reshape(rows, cols) - 4, "scale": scales, "d": _halves(b[..., 108:110])[..., 0]}
    if dtype == "Q2_K":
        q = b[..., 16:80].reshape(rows, n, 2, 1, 32) >> (2 * np.arange(4, dtype=np.uint8))[:, None] & 3
        scale, low = b[..., :16] & 15, b[..., :16] >> 4
        return {
            "q": q.astype(np.int64).reshape(rows, cols),
            "scale": scale.astype(np.int64),
            "min": low.astype(np.int64),
            "d": _halves(b[..., 80:82])[..., 0],
            "dmin": _halves(b[..., 82:84])[..., 0],
        }
    if dtype == "IQ4_XS":
        upper = np.ascontiguousarray(b[..., 2:4]).view(np.uint16) >> np.arange(0, 16, 2, dtype=np.uint16) & 3
        lower = np.stack([b[..., 4:8] & 15, b[..., 4:8] >> 4], axis=-1).reshape(rows, n, 8)
        q = IQ4_TABLE[_nibbles32(b[..., 8:].reshape(rows, n, 8, 16))]
        scales = (lower | upper << 4).astype(np.int64) - 32
        return {"q": q.reshape(rows, cols), "scale": scales, "d": _halves(b[..., 0:2])[..., 0]}
    scale, low = _scales6(b[..., 4:16])
    at = 16 if dtype == "Q4_K" else 48
    qs = b[..., at:].reshape(rows, n, 4, 1, 32)
    q = np.concatenate([qs & 15, qs >> 4], axis=3).reshape(rows, n, 8, 32).astype(np.int64)
    if dtype == "Q5_K":
        q |= (b[..., 16:48].reshape(rows, n, 1, 32) >> np.arange(8, dtype=np.uint8)[:, None] & 1).astype(np.int64) << 4
    return {
        "q": q.reshape(rows, cols),
        "scale": scale.astype(np.int64),
        "min": low.astype(np.int64),
        "d": _halves(b[..., 0:2])[..., 0],
        "dmin": _halves(b[..., 2:4])[..., 0],
    }


def quantized_linear(dtype: str, data: bytes, rows: int, x: np.ndarray) -> np.ndarray:
    """The quantized product by its definition (csrc/cpu/quant_dot4.inl): exact integers, unfused float32 steps."""
    m, cols = x.shape
    codes, dx = quantize_activations(x)
    w = split_blocks(dtype, data, rows, cols)
    block = 256 if cols % 256 == 0 else 32
    acc = np.zeros((m, rows), np.float32)
    a = codes.astype(np.int64)
    for b in range(cols // block):
        if dtype == I8:
            at = slice(b * 256, b * 256 + 256)
            v = (a[:, at] @ w["q"][:, at].T).astype(np.float32) * w["d"][None, :, b]
        elif dtype in K_TYPES:
            sub = 256 // w["scale"].shape[-1]
            at = slice(b * 256, b * 256 + 256)
            dots = np.einsum("mns,rns->mrn", a[:, at].reshape(m, -1, sub), w["q"][:, at].reshape(rows, -1, sub))
            total = (dots * w["scale"][None, :, b, :]).sum(axis=2)
            v = total.astype(np.float32) * w["d"][None, :, b]
            if "min" in w:
                sums = a[:, at].reshape(m, 1, -1, sub).sum(axis=3)
                low = (sums * w["min"][None, :, b, :]).sum(axis=2)
                v = v - low.astype(np.float32) * w["dmin"][None, :, b]
        else:
            v = np.zeros((m, rows), np.float32)
            for i in range(b * block // 32, (b + 1) * block // 32):
                at = slice(i * 32, i * 32 + 32)
                t = (a[:, at] @ w["q"][:, at].T).astype(np.float32) * w["d"][None, :, i]
                if "m" in w:
                    t = t + a[:, at].sum(axis=1, keepdims=True).astype(np.float32) * w["m"][None, :, i]
                v = v + t
        acc = acc + v * dx[:, b : b + 1]
    return acc
