"""Reading a packed world: sprites with their mip levels in one flat atlas of 32-bit texels, backgrounds likewise.

A texel is four bytes R, G, B, A, colours already multiplied by alpha (a background's alpha is 255). Level l of a
sprite is SIDE >> l wide; level 0 comes first. The flat layout lets any renderer fetch a texel with one gather:
    texel(sprite, level, y, x) = atlas[offset[sprite] + start[level] + y * (SIDE >> level) + x]
"""

import copy
import io
import json
import zipfile

import numpy as np
from PIL import Image

from wide.scope import SCOPES, within

SPRITE_LEVELS = 5  # 128, 64, 32, 16, 8
GROUND_LEVELS = 3  # 256, 128, 64


def level_starts(side, levels):
    """Where each mip level begins inside a picture's texels, and the total"""
    sizes = [(side >> k) ** 2 for k in range(levels)]
    return np.cumsum([0, *sizes[:-1]]), sum(sizes)


def pyramid(pixels, levels):
    """(S, S, 4) uint8 -> flat uint32 texels of all levels; each level is the box average of the one before"""
    out, level = [], pixels.astype(np.float32)
    for k in range(levels):
        if k:
            h = level.shape[0] // 2
            level = level.reshape(h, 2, h, 2, 4).mean((1, 3))
        out.append(np.ascontiguousarray((level + 0.5).astype(np.uint8)).view(np.uint32).ravel())
    return np.concatenate(out)


def premultiplied(image, side):
    """A cut-out in the middle of a square: (side, side, 4) uint8, colours times alpha"""
    square = np.zeros((side, side, 4), np.float32)
    a = np.asarray(image.convert("RGBA"), np.float32)
    y, x = (side - a.shape[0]) // 2, (side - a.shape[1]) // 2
    a = np.concatenate([a[..., :3] * (a[..., 3:] / 255), a[..., 3:]], -1)
    square[y : y + a.shape[0], x : x + a.shape[1]] = a
    return (square + 0.5).astype(np.uint8)


class World:
    """An opened archive. `sprites` and `grounds` are the index's rows; `atlas` and `ground_atlas` flat uint32."""

    def __init__(self, path, pixels=True, scope="all"):
        self.scope = SCOPES[scope]
        with zipfile.ZipFile(path) as z:
            index = json.loads(z.read("index.json"))
            self.side, self.ground_side = index["side"], index["ground"]
            self.sprites = within(self.scope, index["sprites"])
            self.grounds, self.photos = index["grounds"], index["photos"]
            self.hulls = [np.array(s["hull"], np.float64) for s in self.sprites]
            self.starts, self.span = level_starts(self.side, SPRITE_LEVELS)
            self.ground_starts, self.ground_span = level_starts(self.ground_side, GROUND_LEVELS)
            for g in self.grounds:  # what stands on a background must differ from its mean colour
                image = Image.open(io.BytesIO(z.read(g["file"]))).convert("RGB")
                g["mean"] = np.asarray(image.reduce(8), np.float32).mean((0, 1)).tolist()
            if pixels:
                self.atlas = np.concatenate([self._sprite(z, s) for s in self.sprites])
                self.ground_atlas = np.concatenate([self._ground(z, g) for g in self.grounds])
        self.path = path
        self.nouns = sorted({s["name"] for s in self.sprites if s["kind"] == "noun"})

    def _sprite(self, z, row):
        image = Image.open(io.BytesIO(z.read(row["file"])))
        if row["tint"]:
            mask = image.convert("L")
            image = Image.new("RGBA", mask.size, (255, 255, 255, 0))
            image.putalpha(mask)
        return pyramid(premultiplied(image, self.side), SPRITE_LEVELS)

    def _ground(self, z, row):
        a = np.asarray(Image.open(io.BytesIO(z.read(row["file"]))).convert("RGB"))
        a = np.concatenate([a, np.full((*a.shape[:2], 1), 255, np.uint8)], -1)
        return pyramid(a, GROUND_LEVELS)

    def without_pixels(self):
        """The same index without the atlases: what workers that only place things need"""
        other = copy.copy(self)
        for name in ("atlas", "ground_atlas"):
            other.__dict__.pop(name, None)
        return other

    def photographs(self):
        """[(row, PIL picture)] held out for the measure of false claims"""
        with zipfile.ZipFile(self.path) as z:
            return [(r, Image.open(io.BytesIO(z.read(r["file"]))).convert("RGB")) for r in self.photos]
