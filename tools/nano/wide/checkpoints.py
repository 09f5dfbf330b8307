"""Checkpoints whole and in pieces: the full state on the training machine's disk, a small one to carry away.

A run is resumed from `RUN/NAME.pt` (weights, heads, optimiser, clock). What has to travel is written as shards:
float16 weights in files of a limited size, `PREFIX-0.pt`, `PREFIX-1.pt`..., the first also with the configuration,
the class names and the vocabulary's bytes, so that the shards alone make a model again.
"""

import glob
import os

import torch

SHARD_BYTES = 15 * 2**20


def save(path, state):
    """Atomically: a killed run leaves the previous checkpoint"""
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)


def load(path, device="cpu"):
    return torch.load(path, map_location=device, weights_only=True)


def write_shards(prefix, weights, about, limit=SHARD_BYTES, dtype=torch.float16):
    """weights {name: tensor}, about: plain values. -> paths; older shards of that prefix are removed"""
    for old in glob.glob(glob.escape(prefix) + "-*.pt"):
        os.remove(old)
    parts, size = [{}], 0
    for name, t in weights.items():
        t = t.detach().to("cpu", dtype).contiguous()
        bytes_ = t.numel() * t.element_size()
        if size + bytes_ > limit and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][name] = t
        size += bytes_
    paths = []
    for i, part in enumerate(parts):
        paths.append(f"{prefix}-{i}.pt")
        save(paths[-1], {"weights": part, "shards": len(parts), "about": about if i == 0 else {}})
    return paths


def read_shards(prefix):
    """-> weights (float32), about"""
    weights, about, count = {}, {}, 1
    i = 0
    while i < count:
        path = f"{prefix}-{i}.pt"
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path}: expected {count} shards of {prefix}")
        part = load(path)
        count = part["shards"]
        about = about or part["about"]
        weights.update({k: v.float() for k, v in part["weights"].items()})
        i += 1
    return weights, about
