"""The made-up weights have what they are made for: heavy tails, correlated inputs, outlier channels, a distribution."""

from pathlib import Path

import heavy_tails
import numpy as np
from helpers.api_model import picture

from kosmos_edge import _core, load

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"


def values(file: _core.GgufFile, name: str) -> np.ndarray:
    dtype, shape = next((dtype, shape) for other, dtype, shape, *_ in file.tensors() if other == name)
    raw = _core.dequantize(dtype, file.tensor_data(name), int(np.prod(shape)))
    return np.frombuffer(raw, np.float32).reshape(shape).astype(np.float64)


def test_statistics_of_trained_weights(tmp_path: Path) -> None:
    target = tmp_path / "made.gguf"
    heavy_tails.write(str(NANO), str(target), seed=0, outliers=8, layers=None)
    file, source = _core.GgufFile(str(target)), _core.GgufFile(str(NANO))
    assert [(t[0], t[2]) for t in file.tensors()] == [(t[0], t[2]) for t in source.tensors()]

    gains = values(file, "blk.0.attn_norm.weight")
    assert gains.max() > 4 * np.median(gains)
    plain = values(file, "blk.0.attn_q.weight") * gains  # before its columns were divided
    kurtosis = np.mean(plain**4) / np.mean(plain**2) ** 2
    assert kurtosis > 3.5, "a Gaussian has 3"
    spectrum = np.linalg.svd(plain, compute_uv=False)
    gaussian = np.linalg.svd(np.random.default_rng(1).standard_normal(plain.shape), compute_uv=False)
    assert spectrum[0] / spectrum[len(spectrum) // 2] > 1.5 * gaussian[0] / gaussian[len(gaussian) // 2]

    with load(target, device="cpu") as model:
        result = model.caption(picture(3), max_tokens=16, logprobs=True)
        # Neither one sure token nor, as ln(1/2413) = -7.8 would be, all alike; some are ruled out in captions.
        assert -6 < np.median(result.logprobs) < -0.01
