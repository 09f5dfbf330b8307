"""The world of nano for its recipe: the definition is kosmos_edge/quality/nano_world.py.

Keeping the description of a scene apart from its pixels makes a scene reproducible from its seed alone, lets the
examples be painted large, and lets training see exactly what the runtime sees: `render(...)` followed by PIL's
bicubic squash to 112x112 (`squash`), the same as the runtime's own preprocessing.

    python world.py --out DIR --seed 900000 --count 6 --size 448     # paint scenes as PNG with a scenes.json
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2]))  # an installed kosmos_edge comes first
from kosmos_edge.quality import nano_world as definition
from kosmos_edge.quality.nano_world import (
    BACKGROUNDS,
    COLOR_NAMES,
    COLORS,
    HELD_OUT_SEED,
    IMAGE_SIZE,
    MAX_OBJECTS,
    SHAPES,
    TONES,
    TRAIN_SEED,
    outline_mask,
    render,
    sample_scene,
    truth,
)

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "COLOR_NAMES",
    "HELD_OUT_SEED",
    "IMAGE_SIZE",
    "MAX_OBJECTS",
    "SHAPES",
    "TONES",
    "TRAIN_SEED",
    "definition",
    "owner_map",
    "render",
    "sample_scene",
    "squash",
    "truth",
]


def squash(image, side=IMAGE_SIZE):
    """To what the model sees: RGB, both sides to `side` by PIL's antialiased bicubic."""
    return image.convert("RGB").resize((side, side), Image.BICUBIC)


def owner_map(scene, size=IMAGE_SIZE):
    """(size, size) uint8: 0 background, i + 1 where objects[i] is on top."""
    out = np.zeros((size, size), np.uint8)
    for i in scene.paint_order:
        out[np.asarray(outline_mask(scene.objects[i].points, size))] = i + 1
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="seed of the first scene")
    ap.add_argument("--count", type=int, default=6)
    ap.add_argument("--seeds", type=int, nargs="+", help="these seeds instead of --count in a row")
    ap.add_argument("--size", type=int, default=448)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    rows = []
    for i, seed in enumerate(a.seeds or range(a.seed, a.seed + a.count)):
        scene = sample_scene(seed)
        name = f"scene-{i:05d}.png"
        render(scene, a.size).save(os.path.join(a.out, name), optimize=True)
        rows.append({"file": name, **truth(scene)})
    with open(os.path.join(a.out, "scenes.json"), "w") as f:
        json.dump(rows, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
