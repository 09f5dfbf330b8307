"""8-bit activations keep what lies beside outliers such as CLIP towers have: cosines of at least 0.999.

Layer by layer, token by token, with the outlier channels and without. bench/activation_outliers.py does the same at
the published widths.
"""

import numpy as np
import pytest
from helpers.outliers import EngineArithmetic, Planted, Recorder, cosine, matrices, plant, run_both, streams
from helpers.tiny import TinyConfig, make_picture, make_tiny, write_tiny

from kosmos_edge import _core

CONFIG = TinyConfig(
    layers=2,
    width=1024,
    ff_width=2048,
    heads=16,
    vision_layers=3,
    vision_width=1024,
    vision_ff_width=2048,
    vision_heads=16,
)
RGB, IDS = make_picture(0, 90, 70), list(range(20, 40))
LEAST = 0.999


@pytest.fixture(scope="module")
def planted() -> Planted:
    tiny = make_tiny(0, CONFIG)
    return plant(tiny.metadata, tiny.weights, RGB, IDS, ratio=100)


@pytest.fixture(scope="module", params=["Q8_0", "Q4_K"])
def both(
    request: pytest.FixtureRequest, planted: Planted, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recorder, EngineArithmetic, str]:
    tiny = make_tiny(0, CONFIG)
    tiny.weights.update(planted.weights)
    path = tmp_path_factory.mktemp("outliers") / f"{request.param}.gguf"
    write_tiny(path, request.param, tiny=tiny)
    return *run_both(str(path), RGB, IDS), str(path)


def test_the_outliers_are_there(planted: Planted, both: tuple[Recorder, EngineArithmetic, str]) -> None:
    exact, _, _ = both
    for stream, channels, least in (
        (exact.inputs["v.blk.2.ln1"], planted.vision, 500),
        (exact.inputs["blk.1.attn_norm"], planted.text, 100),
    ):
        usual = np.median(np.abs(stream))
        assert np.abs(stream).max() / usual > least
        assert (np.abs(stream[:, channels[1:]]) > 40 * usual).all()  # at every token
    massive = np.abs(exact.inputs["v.blk.2.ln1"][:, planted.vision[0]])
    assert np.sort(massive)[-2] > 4 * np.sort(massive)[-3]  # at two tokens
    massive = np.abs(exact.inputs["output_norm"][:, planted.text[0]])
    assert massive.max() > 3 * np.median(massive)


@pytest.mark.parametrize("vision", [True, False], ids=["vision", "text"])
def test_every_layer_and_matrix_keeps_its_direction(
    planted: Planted, both: tuple[Recorder, EngineArithmetic, str], vision: bool
) -> None:
    exact, other, _ = both
    channels = planted.vision if vision else planted.text
    found = [*streams(exact, other, vision, channels), *matrices(exact, other, vision, channels)]
    assert len(found) == (CONFIG.vision_layers if vision else CONFIG.layers) * 7 + 1
    assert [d for d in found if min(d.whole, d.least, d.bulk) < LEAST] == []


def test_one_scale_for_all_tokens_would_not_do(both: tuple[Recorder, EngineArithmetic, str]) -> None:
    """What this measures can fail: with one scale for a whole layer the tokens without massive activations drown."""
    exact, _, _ = both
    x = exact.inputs["v.blk.2.attn_q"]
    step = np.abs(x).max() / 127
    y = Recorder.multiply(exact, (np.rint(x / step) * step).astype(np.float32), "v.blk.2.attn_q")
    assert min(cosine(a, b) for a, b in zip(exact.outputs["v.blk.2.attn_q"], y, strict=True)) < LEAST


def test_the_engine_computes_what_was_compared(both: tuple[Recorder, EngineArithmetic, str]) -> None:
    _, other, path = both
    height, width, _ = RGB.shape
    expected = other.encode_image(RGB)

    def error(isa: str) -> float:
        engine = _core.Engine(path, threads=1, isa=isa)
        found = np.frombuffer(engine.encode_image(RGB, width, height).tobytes(), np.float32)
        return float(np.abs(found - expected.ravel()).max() / np.abs(expected).max())

    if "avx2" in _core.available_isas():  # whose resampler has no matrix of 8 bits
        assert error("avx2") <= 2e-3
    assert error("") <= 8e-3
