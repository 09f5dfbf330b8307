"""The stand-in for trained float weights computes what the quantized file computes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from helpers.api_model import picture

from kosmos_edge import _core, load
from kosmos_edge.convert import requantize

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"


def matrix(path: Path, name: str) -> np.ndarray:
    file = _core.GgufFile(str(path))
    dtype, shape = next((dtype, shape) for other, dtype, shape, *_ in file.tensors() if other == name)
    return np.frombuffer(_core.dequantize(dtype, file.tensor_data(name), int(np.prod(shape))), np.float32).reshape(
        shape
    )


def test_the_function_stays_and_the_weights_do_not(tmp_path: Path) -> None:
    target, floats = tmp_path / "off.gguf", tmp_path / "floats.gguf"
    command = [sys.executable, "-P", ROOT / "bench" / "off_grid.py", NANO, target, "--outliers", "8"]
    subprocess.run(command, check=True, timeout=120)
    requantize(NANO, floats, type="f32")
    scores = []
    for path in (floats, target):
        with load(path, device="cpu") as model:
            ranking = model.score(picture(3), ["a red circle", "two dogs", "a house"])
            scores.append({row.text: row.logprob_sum for row in ranking.ranking})
    for text, value in scores[0].items():
        assert abs(scores[1][text] - value) < 2e-3, text
    before, after = matrix(floats, "blk.1.ffn_down.weight"), matrix(target, "blk.1.ffn_down.weight")
    assert not np.isclose(np.sort(before, axis=None), np.sort(after, axis=None), rtol=1e-2).all()
    assert _core.quantize("Q4_K", before, row_length=before.shape[1]) != _core.quantize(
        "Q4_K", after, row_length=after.shape[1]
    )
