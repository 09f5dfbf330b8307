"""How many rows of the output matrix could still win after a coarse pass with a proven bound: is a two-step arg-max
worth it?

    python bench/argmax_bounds.py [--pictures 40]

Greedy answers of nano and nano-read. For each token h, the decoder's last state, and the highest logit are known. A row
w survives a bound if its upper bound reaches the highest lower bound, so that its exact product would be needed:

- norms: |w| |h|; centred: the same of w minus the mean row; 8 blocks: the sum over 8 parts of the row
- 4, 3 or 2 bits: the product with a copy of so many bits (a scale per 32 values), plus and minus the sum over blocks
  of 32 of |w - copy| |h|

Bytes: of the coarse pass and of the surviving rows in the file's type, against all rows in the file's type. The
rounding of sums is left out, which would only let more rows survive.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from drafts import pictures

from kosmos_edge import hub, load
from kosmos_edge._native import _core

WHAT = {"nano": {"task": "caption", "ground": False}, "nano-read": {"task": "read"}}
PROMPT = {"nano": ("text", "An image of"), "nano-read": ("tags", "<ocr>")}


def coarse(matrix: np.ndarray, bits: int) -> np.ndarray:
    """The matrix with so many bits a value and a scale per 32 values."""
    blocks = matrix.reshape(len(matrix), -1, 32)
    most = 2 ** (bits - 1) - 0.5
    scale = np.abs(blocks).max(2, keepdims=True) / most
    scale[scale == 0] = 1
    return ((np.clip(np.floor(blocks / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + 0.5) * scale).reshape(
        matrix.shape
    )


def part_norms(matrix: np.ndarray, width: int) -> np.ndarray:
    """Norms of the parts of each row."""
    return np.linalg.norm(matrix.reshape(len(matrix), -1, width), axis=2)


def survive(low: np.ndarray, high: np.ndarray) -> float:
    """The share of rows whose upper bound reaches the highest lower bound; (tokens, rows) each."""
    return float((high >= low.max(1, keepdims=True)).mean())


def states(name: str, path: Path, count: int) -> np.ndarray:
    """(tokens, width): what decided each token of the answers."""
    found = []
    with load(path, threads=1) as model:
        for picture in pictures(name, count):
            result = next(iter(model.batch([picture], batch_size=1, **WHAT[name])))
            engine = model._open.engine
            rgb = picture.convert("RGB")
            segments = [("image", engine.encode_image(rgb.tobytes(), *rgb.size)), PROMPT[name]]
            values, _, width = engine.states(segments, result.token_ids[:-1])
            found.append(np.frombuffer(values, np.float32).reshape(-1, width)[-len(result.token_ids) :])
    return np.concatenate(found).astype(np.float64)


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    arguments = parser.parse_args()
    for name in WHAT:
        path = Path(hub.resolve(name))
        file = _core.GgufFile(str(path))
        tensor = next(t for t in file.tensors() if t[0] == "token_embd.weight")
        rows, width = tensor[2]
        values = _core.dequantize(tensor[1], file.tensor_data(tensor[0]), rows * width)
        w = np.frombuffer(values, np.float32).reshape(rows, width).astype(np.float64)
        h = states(name, path, arguments.pictures)
        logits, bits = h @ w.T, tensor[4] * 8 / (rows * width)
        length = np.linalg.norm(h, axis=1)[:, None]
        print(f"{name}: {len(h)} tokens, {rows} rows of {width} in {tensor[1]} ({bits:.2f} bits a value)")
        mean = w.mean(0)
        for label, bound, cost in (
            ("norms", length * np.linalg.norm(w, axis=1), 32 / width),
            ("centred", (h @ mean)[:, None] + length * np.linalg.norm(w - mean, axis=1), 32 / width),
            ("8 blocks", part_norms(h, width // 8) @ part_norms(w, width // 8).T, 8 * 32 / width),
        ):
            # The best lower bound that such a pass can have: the winner itself, as if it were guessed.
            share = survive(logits.max(1, keepdims=True), bound)
            print(f"  {label:9} {100 * share:7.2f} % of the rows survive; bytes {100 * (cost / bits + share):6.1f} %")
        for count in (4, 3, 2):
            copy = coarse(w, count)
            error = part_norms(h, 32) @ part_norms(w - copy, 32).T
            product = h @ copy.T
            share, cost = survive(product - error, product + error), count + 16 / 32 + 8 / 32
            label = f"{count} bits"
            print(f"  {label:9} {100 * share:7.2f} % of the rows survive; bytes {100 * (cost / bits + share):6.1f} %")


if __name__ == "__main__":
    main()
