"""A toy archive of the wider world: drawn blobs under real nouns, so that tests need no packages."""

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "nano"))

from wide import pack
from wide.nouns import nouns

NOUNS = 34


def blob(seed):
    """A cut-out that no other seed has: a few bright circles"""
    rng = np.random.default_rng(seed)
    image = Image.new("RGBA", (pack.SIDE, int(rng.integers(60, 129))))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, r = rng.uniform(0, image.width), rng.uniform(0, image.height), rng.uniform(20, 50)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*rng.integers(0, 256, 3).tolist(), 255))
    return image


def write_toy(path):
    """Nouns with three cut-outs each (one mono, one held out), shapes, two words, two unknowns, three backgrounds"""
    index = {"side": pack.SIDE, "ground": pack.GROUND, "sprites": [], "grounds": [], "photos": []}
    sprites = list(pack.shape_sprites(6))
    for n, noun in enumerate(nouns()[:NOUNS]):
        for k, split in enumerate(("train", "train", "test")):
            kind = "unknown" if n >= NOUNS - 2 else "noun"
            image = blob(n * 3 + k)
            sprites.append(
                {"kind": kind, "name": noun.name, "tint": k == 1, "image": image, "key": f"toy:{n}:{k}", "split": split}
            )
    for kind, text in (("word", "stop"), ("number", "7")):
        sprites += [
            {"kind": kind, "name": text, "tint": True, "image": blob(900 + k), "key": f"font{k}:{text}", "split": split}
            for k, split in enumerate(("train", "test"))
        ]
    with zipfile.ZipFile(path, "w") as z:

        def put(name, image):
            out = io.BytesIO()
            image.save(out, "PNG")
            z.writestr(name, out.getvalue())

        for i, s in enumerate(sprites):
            image = s.pop("image")
            name = f"sprites/{i:05d}.png"
            put(name, image.getchannel("A") if s["tint"] else image)
            index["sprites"].append({"file": name, **s, "hull": pack.outline(image.getchannel("A"))})
        grounds = [(kind, mask) for kind, _, mask in pack.pattern_grounds()]
        rng = np.random.default_rng(1)
        grounds += [("photo", rng.integers(0, 256, (pack.GROUND, pack.GROUND, 3))) for _ in range(3)]
        for i, (kind, mask) in enumerate(grounds):
            name = f"grounds/{i:04d}.png"
            put(name, Image.fromarray(np.asarray(mask).astype(np.uint8)))
            split = "test" if i == len(grounds) - 1 else "train"
            index["grounds"].append({"file": name, "kind": kind, "period": 0, "split": split, "key": f"toy{i}"})
        put("photos/0000.png", Image.fromarray(rng.integers(0, 256, (448, 448, 3)).astype(np.uint8)))
        index["photos"].append({"file": "photos/0000.png", "key": "toy"})
        z.writestr("index.json", json.dumps(index))
    return path
