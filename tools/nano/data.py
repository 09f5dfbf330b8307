"""Scenes as training arrays: a pool painted once and kept on disk, and the dense labels of stage A.

    python data.py --out RUN/pool --count 160000          # 5.9 GB, about 600 scenes a second on one core
    python data.py --out RUN/test --count 1000 --seed 900000000

A pool is a folder of memory-mapped arrays:
    image (N, 112, 112, 3) uint8    what the model sees, painted at 224 or 336 and squashed
    name  (N, 4, 2) int8            shape and colour of each object, left to right; -1 = no object
    box   (N, 4, 4) float32         x1, y1, x2, y2 in 0..1
    owner (N, 8, 8) uint8           per patch: 0 background, i + 1 an object, 255 too little of one to say
    ground (N, 2) int8              background kind and tone
"""

import argparse
import json
import os
import random
import time

import numpy as np
import torch
from boxes import box_bins
from world import HELD_OUT_SEED, IMAGE_SIZE, MAX_OBJECTS, TRAIN_SEED, owner_map, render, sample_scene, squash

PATCH = 14
ROWS = IMAGE_SIZE // PATCH  # 8 x 8 patches
MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's published ones
STD = (0.26862954, 0.26130258, 0.27577711)
FIELDS = {
    "image": (np.uint8, (IMAGE_SIZE, IMAGE_SIZE, 3)),
    "name": (np.int8, (MAX_OBJECTS, 2)),
    "box": (np.float32, (MAX_OBJECTS, 4)),
    "owner": (np.uint8, (ROWS, ROWS)),
    "ground": (np.int8, (2,)),
}
UNSURE = 255


def patch_owner(scene):
    """(8, 8): the object that covers at least 12 % of a patch; every object owns at least one patch."""
    cells = owner_map(scene).reshape(ROWS, PATCH, ROWS, PATCH).transpose(0, 2, 1, 3).reshape(ROWS, ROWS, -1)
    share = np.stack([(cells == i + 1).mean(-1) for i in range(MAX_OBJECTS)], -1)
    most = share.max(-1)
    owner = np.where(most >= 0.12, share.argmax(-1) + 1, np.where(most > 0.03, UNSURE, 0)).astype(np.uint8)
    for i in range(len(scene.objects)):
        if not (owner == i + 1).any():
            owner[np.unravel_index(share[:, :, i].argmax(), (ROWS, ROWS))] = i + 1
    return owner


def arrays_of(seed):
    """One row of a pool."""
    scene = sample_scene(seed)
    size = random.Random(seed ^ 0x5EED).choice((224, 224, 224, 336))
    name = -np.ones((MAX_OBJECTS, 2), np.int8)
    box = np.zeros((MAX_OBJECTS, 4), np.float32)
    for i, o in enumerate(scene.objects):
        name[i], box[i] = (o.shape, o.color), o.box
    return {
        "image": np.asarray(squash(render(scene, size))),
        "name": name,
        "box": box,
        "owner": patch_owner(scene),
        "ground": (scene.background.kind, scene.background.tone),
    }


class Pool:
    """A folder of arrays. While it is still being painted, `ready` scenes may be used."""

    def __init__(self, path):
        self.path = path
        for k in FIELDS:
            setattr(self, k, np.load(os.path.join(path, k + ".npy"), mmap_mode="r"))

    @property
    def ready(self):
        with open(os.path.join(self.path, "ready.json")) as f:
            return json.load(f)["ready"]


def paint_pool(out, count, seed):
    os.makedirs(out, exist_ok=True)
    maps = {
        k: np.lib.format.open_memmap(os.path.join(out, k + ".npy"), "w+", dtype, (count, *shape))
        for k, (dtype, shape) in FIELDS.items()
    }
    start = time.time()
    for i in range(count):
        for k, v in arrays_of(seed + i).items():
            maps[k][i] = v
        if (i + 1) % 2000 == 0 or i + 1 == count:
            for m in maps.values():
                m.flush()
            with open(os.path.join(out, "ready.json.tmp"), "w") as f:
                json.dump({"ready": i + 1, "seed": seed, "seconds": round(time.time() - start, 1)}, f)
            os.replace(os.path.join(out, "ready.json.tmp"), os.path.join(out, "ready.json"))
    print(f"{out}: {count} scenes, {count / (time.time() - start):.0f} a second")


# ------------------------------------------------------------------------------------------ batches
def normalise(images):
    """(B, 112, 112, 3) uint8 -> (B, 3, 112, 112) float32"""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)
    return x.sub_(torch.tensor(MEAN).view(1, 3, 1, 1)).div_(torch.tensor(STD).view(1, 3, 1, 1))


class Batch:
    """Scenes `index` of a pool, some mirrored left to right. Objects are always ordered by centre, left to right."""

    def __init__(self, pool, index, mirror=None):
        index = np.asarray(index)
        n = len(index)
        mirror = np.zeros(n, bool) if mirror is None else mirror
        self.images = pool.image[index].copy()
        self.images[mirror] = self.images[mirror][:, :, ::-1]
        self.names = pool.name[index].astype(np.int64)
        self.boxes = pool.box[index].copy()
        self.ground = pool.ground[index].astype(np.int64)
        owner = pool.owner[index].astype(np.int64)
        owner[mirror] = owner[mirror][:, :, ::-1]
        self.owner = owner.reshape(n, -1)
        self.count = (self.names[:, :, 0] >= 0).sum(1)
        for b in np.flatnonzero(mirror):
            k = self.count[b]
            x1, y1, x2, y2 = self.boxes[b, :k].T
            self.boxes[b, :k] = np.stack([1 - x2, y1, 1 - x1, y2], 1)[::-1]
            self.names[b, :k] = self.names[b, :k][::-1]
            o = self.owner[b]
            self.owner[b] = np.where((o > 0) & (o < UNSURE), k + 1 - o, o)

    def __len__(self):
        return len(self.images)

    def objects(self, b):
        """[(shape, colour, box)] of picture b"""
        return [(int(self.names[b, i, 0]), int(self.names[b, i, 1]), self.boxes[b, i]) for i in range(self.count[b])]

    def labels(self):
        """Dense targets, per patch (B, 64): object, shape, color, rank, box (B, 64, 4) in bins; per picture: count,
        kind, tone"""
        inside = (self.owner > 0) & (self.owner < UNSURE)
        rank = np.where(inside, self.owner - 1, 0)
        at = (np.arange(len(self))[:, None], rank)
        put = torch.from_numpy
        covered = np.where(self.owner == UNSURE, -100, self.owner > 0).astype(np.int64)
        shape, color = np.moveaxis(np.maximum(self.names[at], 0), -1, 0)
        return {
            "inside": put(inside),
            "object": put(covered),
            "shape": put(shape),
            "color": put(color),
            "rank": put(rank),
            "box": put(box_bins(self.boxes)[at]),
            "count": put(self.count - 1),
            "kind": put(self.ground[:, 0]),
            "tone": put(self.ground[:, 1]),
        }


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--count", type=int, required=True)
    ap.add_argument("--seed", type=int, default=TRAIN_SEED)
    a = ap.parse_args()
    if a.seed < HELD_OUT_SEED < a.seed + a.count:
        ap.error("a training pool may not reach into the held-out seeds")
    paint_pool(a.out, a.count, a.seed)


if __name__ == "__main__":
    main()
