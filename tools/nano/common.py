"""What every stage shares: the run folder, resumable checkpoints, a log of JSON lines, sampling of batches."""

import json
import os
import time

import numpy as np
import torch
from data import Batch


def one_thread(seed):
    """One CPU thread (the whole recipe fits one core) and a fixed start"""
    torch.set_num_threads(int(os.environ.get("NANO_THREADS", "1")))
    torch.manual_seed(seed)


def save(path, state):
    """Atomically: a killed run leaves the previous checkpoint"""
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)


def load(path):
    return torch.load(path, map_location="cpu", weights_only=True)


class Log:
    """JSON lines to a file and to the terminal"""

    def __init__(self, path):
        self.path = path
        self.start = time.time()

    def __call__(self, **row):
        row = {"clock": time.strftime("%H:%M:%S"), **row}
        print(json.dumps(row), flush=True)
        with open(self.path, "a") as f:
            f.write(json.dumps(row) + "\n")


def batch_at(pool, step, size, seed):
    """Batch number `step`: its scenes and mirrorings depend on (seed, step) only, so a resumed run goes on the same"""
    rng = np.random.default_rng((seed, step))
    return Batch(pool, np.sort(rng.integers(0, len(pool.image), size)), rng.random(size) < 0.5)
