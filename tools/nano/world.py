"""The world of nano: flat shapes of twelve kinds and ten colours on quiet backgrounds.

A `Scene` is a description in numbers (no pixels), drawn from a seed by `sample_scene`; `render` paints it at
any size. Keeping the two apart makes a scene reproducible from its seed alone, lets the examples be painted
large, and lets training see exactly what the runtime sees: `render(...)` followed by PIL's bicubic squash to
112x112 (`squash`), the same as the runtime's own preprocessing.

Every shape is one polygon (a ring is one with a seam), so its box is the exact extent of its points.
All coordinates are fractions of the picture's side, x to the right, y downwards.

    python world.py --out DIR --seed 900000 --count 6 --size 448     # paint scenes as PNG with a scenes.json
"""

import argparse
import json
import math
import os
import random
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

IMAGE_SIZE = 112  # what the model sees
MAX_OBJECTS = 4
SHAPES = [
    "circle",
    "square",
    "triangle",
    "star",
    "ring",
    "heart",
    "cross",
    "moon",
    "arrow",
    "diamond",
    "flower",
    "bolt",
]
COLORS = {
    "red": (210, 35, 40),
    "orange": (242, 130, 25),
    "yellow": (242, 218, 50),
    "green": (45, 155, 65),
    "blue": (45, 90, 210),
    "purple": (125, 60, 170),
    "pink": (246, 150, 192),
    "brown": (118, 72, 38),
    "black": (22, 22, 25),
    "white": (245, 245, 245),
}
COLOR_NAMES = list(COLORS)
BACKGROUNDS = ["plain", "gradient", "noisy", "striped", "checkered"]
TONES = ["dark", "light"]

TRAIN_SEED = 0  # scenes TRAIN_SEED + 0, 1, 2, ... are trained on
HELD_OUT_SEED = 900_000_000  # scenes from here on never are

MIN_CONTRAST = 95.0  # Euclidean RGB distance of an object's colour from every tone of the background
MAX_HIDDEN = 0.12  # share of an object that a later one may cover
SIZES = {1: (30, 64), 2: (27, 56), 3: (25, 48), 4: (24, 42)}  # longest side in pixels of 112, by number of objects
PERIODS = {"striped": (0.09, 0.25), "checkered": (0.14, 0.36), "noisy": (0.009, 0.036)}  # stripe, check, grain
# how far a shape may be turned without its name becoming doubtful, in degrees either way
TURN = {"square": 12, "diamond": 12, "cross": 12, "heart": 25, "bolt": 25}


@dataclass
class Object:
    shape: int
    color: int
    fill: tuple  # RGB, the named colour with a little jitter
    points: np.ndarray  # (k, 2) polygon
    box: tuple  # (x1, y1, x2, y2), extent of the points

    @property
    def name(self):
        return f"{COLOR_NAMES[self.color]} {SHAPES[self.shape]}"


@dataclass
class Background:
    kind: int
    tone: int
    base: tuple  # RGB
    other: tuple  # RGB, the second tone of gradients, stripes and checks
    angle: float = 0.0
    period: float = 0.1  # of stripes, checks and noise grains
    seed: int = 0  # of the noise


@dataclass
class Scene:
    seed: int
    background: Background
    objects: list = field(default_factory=list)  # by centre, left to right
    paint_order: list = field(default_factory=list)  # indices into objects, first painted first


# ------------------------------------------------------------------------------------------ shapes
def _arc(radius, start, stop, n, cx=0.0, cy=0.0):
    t = np.linspace(start, stop, n)
    return np.stack([cx + radius * np.cos(t), cy + radius * np.sin(t)], 1)


def _polar(radii, start=-math.pi / 2):
    t = start + np.arange(len(radii)) * 2 * math.pi / len(radii)
    return np.stack([radii * np.cos(t), radii * np.sin(t)], 1)


def _unit_polygon(shape, rng):
    """Points of a shape around the origin; `rng` varies what its name leaves open."""
    if shape == "circle":
        return _arc(1, 0, 2 * math.pi, 48)
    if shape == "square":
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.0]])
    if shape == "triangle":
        return np.array([[0, -1], [0.95, 0.72], [-0.95, 0.72]])
    if shape == "star":
        return _polar(np.where(np.arange(10) % 2 == 0, 1.0, rng.uniform(0.38, 0.46)))
    if shape == "ring":
        return np.concatenate([_arc(1, 0, 2 * math.pi, 49), _arc(rng.uniform(0.48, 0.66), 2 * math.pi, 0, 49)])
    if shape == "heart":
        t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
        x = 16 * np.sin(t) ** 3
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([x, -y], 1) / 17
    if shape == "cross":
        a = rng.uniform(0.27, 0.36)
        return np.array(
            [[-a, -1], [a, -1], [a, -a], [1, -a], [1, a], [a, a], [a, 1], [-a, 1], [-a, a], [-1, a], [-1, -a], [-a, -a]]
        )
    if shape == "moon":  # unit circle less a circle of radius r whose centre lies at d
        r, d = rng.uniform(0.76, 0.88), rng.uniform(0.42, 0.52)
        x = (1 + d * d - r * r) / (2 * d)
        outer, inner = math.atan2(math.sqrt(1 - x * x), x), math.atan2(math.sqrt(1 - x * x), x - d)
        return np.concatenate([_arc(1, outer, 2 * math.pi - outer, 40), _arc(r, 2 * math.pi - inner, inner, 32, d)])
    if shape == "arrow":
        return np.array([[-1, -0.26], [0.1, -0.26], [0.1, -0.72], [1, 0], [0.1, 0.72], [0.1, 0.26], [-1, 0.26]])
    if shape == "diamond":
        return np.array([[0, -1], [0.6, 0], [0, 1], [-0.6, 0]])
    if shape == "flower":
        t = np.linspace(0, 2 * math.pi, 60, endpoint=False)
        r = 0.55 + 0.45 * np.abs(np.cos(2.5 * t))  # five round petals
        return np.stack([r * np.cos(t), r * np.sin(t)], 1)
    if shape == "bolt":
        p = np.array([[0.25, -1], [-0.6, 0.15], [-0.08, 0.15], [-0.3, 1], [0.65, -0.25], [0.1, -0.25], [0.55, -1]])
        return p * (rng.choice((-1, 1)), 1)
    raise ValueError(f"unknown shape {shape!r}")


def _placed_polygon(shape, longest, rng):
    """A polygon whose longer side is `longest`, its box starting at the origin."""
    p = _unit_polygon(shape, rng)
    stretch = math.sqrt(rng.uniform(0.86, 1.16))
    p = p * (stretch, 1 / stretch)
    angle = math.radians(rng.uniform(-1, 1) * TURN.get(shape, 180))
    c, s = math.cos(angle), math.sin(angle)
    p = p @ np.array([[c, s], [-s, c]])
    p = p - p.min(0)
    return p * (longest / p.max())


# ------------------------------------------------------------------------------------------ scenes
def _distance(a, b):
    return math.dist(a, b)


def _sample_background(rng):
    tone = rng.randrange(2)
    kind = rng.randrange(len(BACKGROUNDS))
    level = rng.uniform(*((42, 92), (168, 218))[tone])
    tint = [rng.uniform(-28, 28) for _ in range(3)]
    mean = sum(tint) / 3
    base = tuple(min(255.0, max(0.0, level + t - mean)) for t in tint)
    step = rng.uniform(14, 26) * rng.choice((-1, 1))
    if BACKGROUNDS[kind] == "gradient":
        step *= 1.5
    other = tuple(min(255.0, max(0.0, b + step * rng.uniform(0.7, 1.3))) for b in base)
    periods = PERIODS.get(BACKGROUNDS[kind], (0.1, 0.1))
    return Background(kind, tone, base, other, rng.uniform(0, math.pi), rng.uniform(*periods), rng.getrandbits(31))


def _mask(points, size):
    im = Image.new("1", (size, size))
    ImageDraw.Draw(im).polygon([(x * size, y * size) for x, y in points.tolist()], fill=1)
    return np.asarray(im)


def _touches(a, b, gap):
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def sample_scene(seed):
    """The scene of a seed: 1..4 objects, each at most MAX_HIDDEN covered, each in contrast to the background."""
    rng = random.Random(seed)
    background = _sample_background(rng)
    palette = [
        c
        for c in range(len(COLOR_NAMES))
        if min(_distance(COLORS[COLOR_NAMES[c]], background.base), _distance(COLORS[COLOR_NAMES[c]], background.other))
        >= MIN_CONTRAST
    ]
    wanted = rng.choices((1, 2, 3, 4), (0.22, 0.3, 0.27, 0.21))[0]
    may_overlap = rng.random() < 0.25
    repeat = rng.random()  # some scenes repeat a shape, a colour or a whole object
    found, masks = [], []
    for _ in range(wanted * 12):
        if len(found) == wanted:
            break
        shape, color = rng.randrange(len(SHAPES)), rng.choice(palette)
        if found and repeat < 0.18:
            shape = found[0].shape
        if found and 0.10 < repeat < 0.28:
            color = found[0].color
        p = _placed_polygon(SHAPES[shape], rng.uniform(*SIZES[wanted]) / IMAGE_SIZE, rng)
        w, h = p.max(0)
        x, y = rng.uniform(0.01, 0.99 - w), rng.uniform(0.01, 0.99 - h)
        box = (x, y, x + w, y + h)
        if not may_overlap and any(_touches(box, o.box, 0.02) for o in found):
            continue
        p += (x, y)
        mask = _mask(p, IMAGE_SIZE)
        if any((mask & m).sum() > MAX_HIDDEN * m.sum() for m in masks):
            continue
        light = rng.uniform(0.95, 1.05)
        fill = tuple(int(min(255, max(0, v * light + rng.uniform(-8, 8)))) for v in COLORS[COLOR_NAMES[color]])
        found.append(Object(shape, color, fill, p, box))
        masks.append(mask)
    order = sorted(range(len(found)), key=lambda i: found[i].box[0] + found[i].box[2])
    return Scene(seed, background, [found[i] for i in order], [order.index(i) for i in range(len(found))])


# ------------------------------------------------------------------------------------------ painting
def _paint_background(b, size):
    kind = BACKGROUNDS[b.kind]
    base, other = np.array(b.base, np.float32), np.array(b.other, np.float32)
    if kind == "plain":
        return Image.new("RGB", (size, size), tuple(int(v) for v in b.base))
    if kind == "noisy":
        n = max(8, round(1 / b.period))
        noise = np.random.default_rng(b.seed).standard_normal((n, n, 1), np.float32)
        a = base + noise * (np.abs(other - base).mean() * 0.75)
        im = Image.fromarray(np.clip(a, 0, 255).astype(np.uint8))
        return im.resize((size, size), Image.BILINEAR)
    line = np.arange(size, dtype=np.float32) / size
    u = line[None] * math.cos(b.angle) + line[:, None] * math.sin(b.angle)
    if kind == "gradient":
        mix = (u - u.min()) / (u.max() - u.min())
    else:
        soft = size * b.period / 2
        mix = np.clip(np.sin(u * (2 * math.pi / b.period)) * soft, -1, 1)
        if kind == "checkered":
            v = line[:, None] * math.cos(b.angle) - line[None] * math.sin(b.angle)
            mix = mix * np.clip(np.sin(v * (2 * math.pi / b.period)) * soft, -1, 1)
        mix = mix * 0.5 + 0.5
    table = (base + (other - base) * np.linspace(0, 1, 256, dtype=np.float32)[:, None]).astype(np.uint8)
    return Image.fromarray(table[(mix * 255).astype(np.uint8)])


def render(scene, size=224):
    """Paint a scene at size x size, edges smoothed by 2x supersampling."""
    im = _paint_background(scene.background, size)
    for i in scene.paint_order:
        o = scene.objects[i]
        x0, y0 = int(o.box[0] * size), int(o.box[1] * size)
        w, h = math.ceil(o.box[2] * size) - x0 + 1, math.ceil(o.box[3] * size) - y0 + 1
        mask = Image.new("L", (2 * w, 2 * h))
        points = (o.points * size - (x0, y0)) * 2
        ImageDraw.Draw(mask).polygon([tuple(p) for p in points.tolist()], fill=255)
        im.paste(o.fill, (x0, y0, x0 + w, y0 + h), mask.reduce(2))
    return im


def squash(image):
    """To what the model sees: RGB, both sides to 112 by PIL's antialiased bicubic."""
    return image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.BICUBIC)


def owner_map(scene, size=IMAGE_SIZE):
    """(size, size) uint8: 0 background, i + 1 where objects[i] is on top."""
    out = np.zeros((size, size), np.uint8)
    for i in scene.paint_order:
        out[_mask(scene.objects[i].points, size)] = i + 1
    return out


def truth(scene):
    """The scene as plain data, for files that lie beside a picture."""
    return {
        "seed": scene.seed,
        "background": {"tone": TONES[scene.background.tone], "kind": BACKGROUNDS[scene.background.kind]},
        "objects": [
            {"shape": SHAPES[o.shape], "color": COLOR_NAMES[o.color], "box": [round(float(v), 5) for v in o.box]}
            for o in scene.objects
        ],
    }


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
