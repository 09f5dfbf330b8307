"""KOSMOS-2 at its published size with made-up weights whose statistics are like those of trained ones.

    python bench/heavy_tails.py FULL.gguf OUT.gguf [--outliers 8] [--layers N] [--seed 0]
    python bench/calibrated.py --model OUT.gguf --calibrate 8 --n 12 --types q4_k_m,q3_k_m

FULL.gguf gives the shapes, vocabulary and settings (bench/full_size.py makes one); OUT.gguf has 3.3 GB, matrices in
float16; with --layers only the first N of decoder and tower. The published weights are not at hand, and Gaussian ones
would say nothing of calibration: their inputs have no direction in which an error could hide. Here

- a matrix is the sum of one with singular values that fall like i^-0.5, so that activations are correlated, and one
  of values of Student's t with 4 degrees of freedom, as heavy in the tails as trained matrices; half the variance each;
- gains of norms are 2^N(0, 0.5), every 64th up to R times larger; the columns that read them are divided by the gains;
- what a branch adds to the residual stream is small beside it, so that layers refine instead of mixing anew;
- the last norm's gains have random signs and a size that gives the next token's distribution an entropy of some nats;
- the end of an answer is likely enough to come after some 15 tokens.
"""

import argparse

import numpy as np
from off_grid import kept_entries

from kosmos_edge import _core
from kosmos_edge.convert.gguf import ALIGNMENT, TensorInfo, data_offsets, encode_header

BRANCH = 0.3  # standard deviation of what a branch adds, the stream's embedding has 1
LOGITS = 4.0  # standard deviation of the logits
END = 2.108  # so many of these is the mean logit of the end below sqrt(2 ln n), about the largest of n others
READERS = {  # the norm whose channels a matrix reads
    "attn_q": "attn_norm", "attn_k": "attn_norm", "attn_v": "attn_norm", "attn_output": "attn_sub_norm",
    "ffn_up": "ffn_norm", "ffn_down": "ffn_sub_norm",
}  # fmt: skip
TOWER_READERS = {"attn_q": "ln1", "attn_k": "ln1", "attn_v": "ln1", "ffn_up": "ln2"}
BRANCH_ENDS = ("attn_output", "attn_out", "ffn_down")


class Maker:
    """Tensors in the file's order; a norm's gains come before the matrices that read them."""

    def __init__(self, seed: int, outliers: float, end: int) -> None:
        """end: the token's id."""
        self.random, self.seed = np.random.default_rng(seed), seed
        self.outliers, self.end = outliers, end
        self.gains: dict[str, np.ndarray] = {}

    def gain(self, n: int) -> np.ndarray:
        """A norm's gains."""
        out = 2.0 ** self.random.normal(0, 0.5, n)
        some = self.random.choice(n, n // 64, replace=False)
        out[some] *= self.random.uniform(max(1.0, self.outliers / 4), self.outliers, len(some))
        return out.astype(np.float32)

    def last_bias(self, n: int) -> np.ndarray:
        """Of the last norm."""
        return 0.1 * np.random.default_rng((self.seed, 1)).standard_normal(n, np.float32)

    def matrix(self, rows: int, columns: int) -> np.ndarray:
        """Correlated, with heavy tails; products of inputs of size 1 have size 1."""
        rank = min(rows, columns)
        left = self.random.standard_normal((rows, rank), np.float32)
        right = self.random.standard_normal((rank, columns), np.float32)
        right *= (np.arange(1, rank + 1, dtype=np.float32) ** -0.5)[:, None]
        smooth = left @ right
        rough = self.random.standard_t(4, (rows, columns)).astype(np.float32)
        out = smooth / smooth.std() + rough / rough.std()
        return out / np.sqrt(2 * columns, dtype=np.float32)

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """float32 values of that shape."""
        *head, role, kind = name.split(".")
        prefix = "".join(f"{part}." for part in head)
        if name == "output_norm.weight":
            signs = self.random.choice(np.float32([-1, 1]), shape)
            return signs * np.float32(LOGITS) * 2.0 ** self.random.normal(0, 0.3, shape).astype(np.float32)
        if name == "token_embd.weight":
            out = (self.random.standard_t(4, shape) / np.sqrt(2 * shape[1])).astype(np.float32)
            bias = self.last_bias(shape[1])
            end = LOGITS * (np.sqrt(2 * np.log(shape[0])) - END)
            out[self.end] += np.float32(end) * bias / (bias @ bias)
            return out
        if name == "output_norm.bias":
            return self.last_bias(shape[0])
        if kind == "weight" and len(shape) == 1:
            self.gains[f"{prefix}{role}"] = out = self.gain(shape[0])
            return out
        if kind == "weight" and role not in ("patch_embd", "position_embd"):
            out = self.matrix(*shape)
            readers = TOWER_READERS if name.startswith("v.") else READERS
            norm = f"{prefix}{readers[role]}" if role in readers and not name.startswith("mm.") else None
            if norm in self.gains:
                out /= self.gains[norm]
            return out * np.float32(BRANCH) if role in BRANCH_ENDS else out
        size = {"position_embd": 0.3, "class_embd": 1.0, "latent_query": 1.0, "patch_embd": 588**-0.5}.get(
            role if kind else name, 0.1
        )
        return (size * self.random.standard_normal(shape)).astype(np.float32)


def layer_of(name: str) -> int:
    """-1 for what is in no layer."""
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return numbers[0] if numbers else -1


def write(source: str, target: str, seed: int, outliers: float, layers: int | None) -> None:
    """The whole file, tensor by tensor."""
    tensors = _core.GgufFile(source).tensors()
    tensors = [tensor for tensor in tensors if layers is None or layer_of(tensor[0]) < layers]
    infos = [
        TensorInfo(name, "F16" if len(shape) > 1 and dtype != "F32" else "F32", shape)
        for name, dtype, shape, *_ in tensors
    ]
    kept = kept_entries(source)
    if layers is not None:
        kept = [(key, "u32", layers) if key.endswith(".block_count") else (key, *rest) for key, *rest in kept]
    head = encode_header([*kept, ("general.file_type", "u32", 1), ("general.alignment", "u32", ALIGNMENT)], infos)
    offsets, _ = data_offsets(infos)
    maker = Maker(seed, outliers, _core.model_info(source)["eos"])
    with open(target, "wb") as out:
        out.write(head)
        for info, offset in zip(infos, offsets, strict=True):
            values = maker.tensor(info.name, tuple(info.shape))
            out.seek(len(head) + offset)
            out.write(np.ascontiguousarray(values, "<f2" if info.dtype == "F16" else "<f4").tobytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--outliers", type=float, default=8, metavar="R")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, metavar="N")
    options = parser.parse_args()
    write(options.source, options.target, options.seed, options.outliers, options.layers)
