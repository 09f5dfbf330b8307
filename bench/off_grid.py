"""A float32 file that computes what a quantized one computes, with weights that lie on no grid of codes.

    python bench/off_grid.py kosmos_edge/data/nano-q4_k_m.gguf OUT.gguf [--outliers 30] [--seed 0]

For measuring what rounding costs where a trained model is there in rounded form only. Channels behind a norm are
multiplied and the columns of the matrices that read them divided by the same factors, the tower's channels and all
hidden units change places: the function stays the same but for float32's rounding (KL below 1e-6), and no block keeps
its scale. Factors are 2^N(0, 0.5); with --outliers R every 64th channel, drawn anew for each norm, is up to R times
larger, too, as in large trained models. The embedding, which is the output matrix, too, keeps its
values. KOSMOS-2 files only.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np

from kosmos_edge import _core
from kosmos_edge.convert.gguf import ALIGNMENT, Entry, TensorInfo, data_offsets, encode_header
from kosmos_edge.convert.requantize import read_entries
from kosmos_edge.convert.sources.files import SourceFile

OWN = ("general.file_type", "general.alignment")


class Weights:
    """Tensors by name, changed in pairs that cancel."""

    def __init__(self, path: str, seed: int, outliers: float) -> None:
        file = _core.GgufFile(path)
        self.of: dict[str, np.ndarray] = {}
        for name, dtype, shape, *_ in file.tensors():
            count = int(np.prod(shape))
            raw = _core.dequantize(dtype, file.tensor_data(name), count)
            self.of[name] = np.frombuffer(raw, np.float32).reshape(shape).astype(np.float64)
        self.random = np.random.default_rng(seed)
        self.outliers = outliers

    def factors(self, n: int) -> np.ndarray:
        """Of n channels."""
        out = 2.0 ** self.random.normal(0, 0.5, n)
        if self.outliers > 1:
            some = self.random.choice(n, max(1, n // 64), replace=False)
            out[some] *= self.random.uniform(self.outliers / 4, self.outliers, len(some))
        return out

    def scale(self, made: list[str], read: list[str]) -> None:
        """Channels that the tensors `made` give and the matrices `read` take: rows or values, and columns."""
        factors = self.factors(self.of[read[0]].shape[-1])
        for name in made:
            value = self.of[name]
            value *= factors if value.ndim == 1 or name.endswith("latent_query") else factors[:, None]
        for name in read:
            self.of[name] /= factors

    def shuffle(self, made: list[str], read: list[str]) -> None:
        """As scale, with places: made by rows (or single values), read by columns."""
        order = self.random.permutation(self.of[read[0]].shape[-1])
        for name in made:
            self.of[name] = self.of[name][order]
        for name in read:
            self.of[name] = self.of[name][..., order]

    def disguise(self) -> None:
        """All of it."""
        layers = 1 + max(int(name.split(".")[1]) for name in self.of if name.startswith("blk."))
        tower = 1 + max(int(name.split(".")[2]) for name in self.of if name.startswith("v.blk."))
        made, read = ["v.patch_embd.weight"], ["v.position_embd.weight", "mm.dense.weight"]
        read += [name for name in ("v.class_embd", "v.pre_ln.weight", "v.pre_ln.bias") if name in self.of]
        read += ["v.post_ln.weight", "v.post_ln.bias"]
        for i in range(tower):
            p = f"v.blk.{i}."
            made += [f"{p}{part}.{kind}" for part in ("attn_out", "ffn_down") for kind in ("weight", "bias")]
            read += [f"{p}{part}.{kind}" for part in ("ln1", "ln2") for kind in ("weight", "bias")]
            read += [f"{p}{part}.weight" for part in ("attn_q", "attn_k", "attn_v", "ffn_up")]
        self.shuffle(made, read)
        for i in range(tower):
            p = f"v.blk.{i}."
            self.scale(
                [f"{p}ln1.weight", f"{p}ln1.bias"], [f"{p}{part}.weight" for part in ("attn_q", "attn_k", "attn_v")]
            )
            self.scale([f"{p}ln2.weight", f"{p}ln2.bias"], [f"{p}ffn_up.weight"])
            self.scale([f"{p}attn_v.weight", f"{p}attn_v.bias"], [f"{p}attn_out.weight"])
            self.shuffle([f"{p}ffn_up.weight", f"{p}ffn_up.bias"], [f"{p}ffn_down.weight"])
        keys = [f"mm.{part}.weight" for part in ("attn_q", "attn_k", "attn_v")]
        self.scale(["mm.dense.weight", "mm.dense.bias", "mm.latent_query"], keys)
        self.scale(["mm.attn_v.weight", "mm.attn_v.bias"], ["mm.attn_out.weight"])
        for i in range(layers):
            p = f"blk.{i}."
            self.shuffle(
                [f"{p}{part}.{kind}" for part in ("ffn_up", "ffn_sub_norm") for kind in ("weight", "bias")],
                [f"{p}ffn_down.weight"],
            )
            for norm, parts in (
                ("attn_norm", ("attn_q", "attn_k", "attn_v")),
                ("attn_sub_norm", ("attn_output",)),
                ("ffn_norm", ("ffn_up",)),
                ("ffn_sub_norm", ("ffn_down",)),
            ):
                self.scale([f"{p}{norm}.weight", f"{p}{norm}.bias"], [f"{p}{part}.weight" for part in parts])


def kept_entries(source: str) -> list[Entry]:
    """The metadata of a file but for what depends on its tensors."""
    first = min(offset for *_, offset, _ in _core.GgufFile(source).tensors())
    with SourceFile(Path(source)) as raw:
        entries = read_entries(raw, first)
    return [entry for entry in entries if entry[0] not in OWN and not entry[0].endswith(".checksum.sha256")]


def write(source: str, target: str, seed: int, outliers: float) -> None:
    """The whole file."""
    weights = Weights(source, seed, outliers)
    weights.disguise()
    tensors = _core.GgufFile(source).tensors()
    infos = [TensorInfo(name, "F32", shape) for name, _, shape, *_ in tensors]
    blobs = [np.ascontiguousarray(weights.of[info.name], "<f4").tobytes() for info in infos]
    architecture = _core.model_info(source)["architecture"]
    head = encode_header(
        [
            *kept_entries(source),
            ("general.file_type", "u32", 0),
            ("general.alignment", "u32", ALIGNMENT),
            (f"{architecture}.checksum.sha256", "[str]", [hashlib.sha256(blob).hexdigest() for blob in blobs]),
        ],
        infos,
    )
    offsets, size = data_offsets(infos)
    data = bytearray(size)
    for offset, blob in zip(offsets, blobs, strict=True):
        data[offset : offset + len(blob)] = blob
    Path(target).write_bytes(head + data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--outliers", type=float, default=1, metavar="R")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write(options.source, options.target, options.seed, options.outliers)
