"""What is in a scene and where, as numbers: drawn from a seed, the same for every renderer.

    sample(world, seed, split) -> Scene

A scene is a background, layers painted in order (shadows, cut-outs, shapes, words; some of them unknown things that
are passed over in silence), the objects that may be spoken of, and light. Everything is a fraction of the picture's
side, x to the right, y downwards. A layer's `inverse` maps a place in the picture to one in its sprite (0..1), its
`color` (3 x 4) the sprite's colours to the painted ones. The extent of an object is that of its turned outline.
"""

import math
import random
from dataclasses import dataclass, field

import numpy as np
from world import definition as shapes

MAX_OBJECTS = 5
MAX_LAYERS = 8
COLORS = shapes.COLORS
COLOR_NAMES = list(COLORS)
KINDS = [*shapes.BACKGROUNDS, "photo"]
SIZES_ALONE = {n: tuple(v / shapes.IMAGE_SIZE for v in s) for n, s in shapes.SIZES.items()}
MAX_COVERED = 0.12  # share of the smaller box that another may overlap, in the scenes where any may
PHOTOS = 0.62  # share of scenes on photographs
RECOLORED = 0.08  # of the colour cut-outs are painted in shades of one named colour
LUMINANCE = np.array([0.299, 0.587, 0.114])


@dataclass
class Object:
    kind: str  # noun, shape, word, number
    name: str  # of the noun or shape, or the text
    color: str | None  # a named colour where it has one
    box: tuple  # x1, y1, x2, y2
    sprite: int


# A sprite bent by waves: x += a sin(2 pi (f y + p)) 4 x (1 - x), nothing at its edges; y likewise. Places in it (0..1)
# are meant: a, f, p for x, then for y.
NO_WARP = (0.0,) * 6


@dataclass
class Layer:
    sprite: int
    inverse: np.ndarray  # (2, 3)
    color: np.ndarray  # (3, 4)
    opacity: float = 1.0
    object: int = 0  # i + 1 of the object it shows, 0 for none
    soft: int = 0  # mip levels above the sharp one
    warp: tuple = NO_WARP


@dataclass
class Scene:
    seed: int
    ground: int
    ground_inverse: np.ndarray  # (2, 3)
    ground_color: np.ndarray  # (3, 4)
    kind: str  # of the background
    tone: str | None  # dark or light, of a pattern
    layers: list = field(default_factory=list)
    objects: list = field(default_factory=list)  # by centre, left to right
    light: tuple = (1.0, 0.0, 0.0)  # gain in the middle, slope to the right, slope downwards
    grain: float = 0.0  # noise, in 0..1 of full scale
    shapes_alone: bool = False  # a scene of v0's world


class Pools:
    """Sprites and backgrounds of a world by what they may be drawn for."""

    def __init__(self, opened):
        self.world, self.scope = opened, opened.scope
        self.sprites, self.grounds = {}, {}
        for i, s in enumerate(opened.sprites):
            key = (s["kind"], s["split"], s["name"])
            self.sprites.setdefault(key, ([], []))[s["tint"]].append(i)
        for i, g in enumerate(opened.grounds):
            self.grounds.setdefault((g["kind"], g["split"]), []).append(i)
        self.names = {}
        for kind, split, name in self.sprites:
            self.names.setdefault((kind, split), []).append(name)
        for v in self.names.values():
            v.sort()

    def sprite(self, kind, split, name, rng, mono_share):
        drawn, mono = self.sprites[kind, split, name]
        return rng.choice(mono if not drawn or (mono and rng.random() < mono_share) else drawn)


# ------------------------------------------------------------------------------------------ colours
def plain_color(rgb):
    """Every colour of the sprite becomes this one"""
    return np.concatenate([np.zeros((3, 3)), np.asarray(rgb, float)[:, None] / 255], 1)


def turned_hue(degrees):
    """(3, 3): colours turned about the grey axis"""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)) / math.sqrt(3)
    return c * np.eye(3) + (1 - c) / 3 + s * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])


def jittered_color(rng, strong=False):
    """Brightness, saturation and a little of the balance; `strong`: more of it, and the hue"""
    gain, saturation = rng.uniform(0.78, 1.2), rng.uniform(0.65, 1.25)
    if strong:
        gain, saturation = rng.uniform(0.65, 1.25), rng.uniform(0.3, 1.4)
    m = saturation * np.eye(3) + (1 - saturation) * LUMINANCE[None]
    if strong:
        m = m @ turned_hue(rng.gauss(0, 12))
    m = m * gain * np.array([[rng.uniform(0.93, 1.07)] for _ in range(3)])
    return np.concatenate([m, np.full((3, 1), rng.uniform(-0.05, 0.05))], 1)


def shaded_color(rgb):
    """Shades of one colour, darker where the sprite is dark"""
    c = np.asarray(rgb, float) / 255
    return np.concatenate([0.75 * c[:, None] * LUMINANCE[None], 0.38 * c[:, None]], 1)


def _near(name, rng):
    """A named colour with a little jitter"""
    light = rng.uniform(0.95, 1.05)
    return tuple(min(255.0, max(0.0, v * light + rng.uniform(-8, 8))) for v in COLORS[name])


# ------------------------------------------------------------------------------------------ background
def _sample_ground(pools, split, rng, photos=PHOTOS, practice=None):
    """-> ground index, inverse, colour, kind, tone, the tones that objects must stand out from"""
    if photos and rng.random() < photos:
        g = rng.choice(pools.grounds.get(("photo", split)) or pools.grounds["photo", "train"])
        wide = high = rng.uniform(practice.part if practice else 0.45, 1.0)
        if practice:
            high = min(1.0, wide * rng.uniform(0.75, 1.33))
        x, y = rng.uniform(0, 1 - wide), rng.uniform(0, 1 - high)
        inverse = np.array([[wide, 0, x], [0, high, y]])
        if rng.random() < 0.5:
            inverse[0] = (-wide, 0, x + wide)
        if rng.random() < 0.15:
            inverse[1] = (0, -high, y + high)
        color = jittered_color(rng, practice is not None)
        mean = np.array(pools.world.grounds[g]["mean"]) / 255
        return g, inverse, color, "photo", None, [tuple(255 * (color[:, :3] @ mean + color[:, 3]))]
    b = shapes._sample_background(rng)
    kind = shapes.BACKGROUNDS[b.kind]
    g = rng.choice(pools.grounds[kind, "train"])
    if kind == "gradient":  # the ramp rises over half of the mask
        k, offset = 0.5 / (abs(math.cos(b.angle)) + abs(math.sin(b.angle))), 0.25
    else:
        k, offset = rng.uniform(0.55, 1.1), rng.random()
    c, s = k * math.cos(b.angle), k * math.sin(b.angle)
    inverse = np.array([[c, s, offset - (c + s) / 2], [-s, c, offset - (c - s) / 2]])
    base, other = np.array(b.base) / 255, np.array(b.other) / 255
    color = np.concatenate([np.outer(other - base, (1, 0, 0)), base[:, None]], 1)
    return g, inverse, color, kind, shapes.TONES[b.tone], [b.base, b.other]


# ------------------------------------------------------------------------------------------ placing
def _turn_of(scope, kind, name):
    return shapes.TURN.get(name, 180) if kind == "shape" else scope.turn[kind]


STRETCH = (0.85, 1.17)  # width to height


def _placed(hull, longest, turn, mirror, rng, stretches=STRETCH):
    """-> (2, 2) matrix from the sprite's square (-1..1) to the picture, and its outline's extent around 0"""
    stretch = math.sqrt(rng.uniform(*stretches))
    angle = math.radians(rng.uniform(-turn, turn)) if rng.random() < 0.75 else 0.0
    c, s = math.cos(angle), math.sin(angle)
    m = np.array([[c, -s], [s, c]]) * (stretch * (-1 if mirror else 1), 1 / stretch)
    points = hull @ m.T
    low, high = points.min(0), points.max(0)
    scale = longest / (high - low).max()
    return m * scale, low * scale, high * scale


def _warp(most, rng):
    """Waves of up to `most` of the sprite's side, half a wave to one and a half across it"""
    return tuple(v for _ in "xy" for v in (rng.uniform(0, most), rng.uniform(0.5, 1.5), rng.random()))


def _inverse(m, centre):
    inv = np.linalg.inv(m) / 2
    return np.concatenate([inv, (0.5 - inv @ centre)[:, None]], 1)


def _overlap(a, b, gap=0.0):
    """Share of the smaller box that lies under the other; above zero if they come nearer than `gap`"""
    w = min(a[2], b[2]) - max(a[0], b[0]) + gap
    h = min(a[3], b[3]) - max(a[1], b[1]) + gap
    if w <= 0 or h <= 0:
        return 0.0
    small = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return w * h / small


def _choose(pools, split, taken, rng, shapes_alone):
    """Kind and name of the next object; a scene often repeats one"""
    if taken and rng.random() < 0.34:
        return taken[0]
    kind = "shape" if shapes_alone else rng.choices(*pools.scope.kinds)[0]
    names = pools.names.get((kind, split))
    if not names:
        kind, names = "noun", pools.names["noun", split]
    return kind, rng.choice(names)


def _color_of(row, kind, palette, rng, practice=None):
    """-> colour matrix, colour name or None"""
    if row["tint"]:
        name = rng.choice(palette)
        return plain_color(_near(name, rng)), name
    if kind == "noun" and rng.random() < (practice.recolored if practice else RECOLORED):
        name = rng.choice([c for c in palette if c not in ("black", "white", "brown")] or ["blue"])
        return shaded_color(_near(name, rng)), name
    return jittered_color(rng, practice is not None), None


def sample(pools, seed, split="train", ground_split=None, count=None, practice=None):
    """The scene of a seed. `split`: which cut-outs it may show; `ground_split`: which photographs lie behind;
    `practice`: one of the scope's, or None for a scene as it will be asked about"""
    scope = pools.scope
    mono, stretches = (practice.mono, practice.stretch) if practice else (scope.mono, STRETCH)
    rng = random.Random(f"{split} {seed}")
    alone = scope.shapes_alone > 0 and rng.random() < scope.shapes_alone
    blank = practice is not None and count is None and not alone and rng.random() < practice.blank
    photos = 0.0 if alone else 1.0 if blank else PHOTOS
    ground = _sample_ground(pools, ground_split or split, rng, photos, practice)
    g, ground_inverse, ground_color, kind, tone, tones = ground
    scene = Scene(seed, g, ground_inverse, ground_color, kind, tone, shapes_alone=alone)
    palette = [n for n, c in COLORS.items() if min(math.dist(c, t) for t in tones) >= shapes.MIN_CONTRAST]
    palette = palette or ["black", "white"]
    sizes, (numbers, shares) = (SIZES_ALONE, scope.counts) if alone else (scope.sizes, (practice or scope).counts)
    if alone:
        shares = [float(k in sizes) for k in numbers]
    n = rng.choices(numbers, shares)[0] if count is None else count
    n = 0 if blank else n
    may_overlap = rng.random() < (practice.overlapping if practice else 0.3)
    most = practice.covered if practice else MAX_COVERED
    unknown = pools.names.get(("unknown", split)) or pools.names.get(("unknown", "train"), [])
    strangers = 0
    if not alone and unknown and rng.random() < (0.45 if n == 0 else 0.14):
        strangers = rng.choice((1, 1, 2)) if n == 0 else 1
    same = n > 1 and rng.random() < 0.5  # the repeated name of such a scene is its first
    wanted = [True] * n + [False] * strangers
    taken, placed = [], []
    for known in wanted:
        for _ in range(14):
            if known:
                k, name = _choose(pools, split, taken if same else [], rng, alone)
                sprite = pools.sprite(k, split, name, rng, mono)
            else:
                k, name = "unknown", rng.choice(unknown)
                s = split if ("unknown", split, name) in pools.sprites else "train"
                sprite = pools.sprite(k, s, name, rng, mono)
            longest = rng.uniform(*sizes[max(1, min(scope.max_objects, n + strangers))])
            if k == "word":
                longest = min(0.85, longest * 1.35)
            mirror = k in ("noun", "unknown") and rng.random() < 0.5
            turn = _turn_of(scope, k, name) * (practice.turn if practice and k in scope.turn else 1)
            m, low, high = _placed(pools.world.hulls[sprite], longest, turn, mirror, rng, stretches)
            room = 0.985 - (high - low)
            corner = np.array([rng.uniform(0.015, max(0.0151, v)) for v in room])
            box = (*corner.tolist(), *(corner + high - low).tolist())
            limit = most if may_overlap else 0.0
            if all(_overlap(box, p[0], 0.0 if may_overlap else 0.012) <= limit for p in placed):
                row = pools.world.sprites[sprite]
                color, color_name = _color_of(row, k, palette, rng, practice)
                warp = _warp(practice.bent, rng) if practice and k == "noun" else NO_WARP
                said = color_name if known else None
                placed.append((box, k, name, sprite, m, corner - low, color, said, known, warp))
                taken += [(k, name)] * known
                break
    rng.shuffle(placed)
    shown = sorted((p for p in placed if p[8]), key=lambda p: p[0][0] + p[0][2])
    scene.objects = [Object(p[1], p[2], p[7], p[0], p[3]) for p in shown]
    rank = {id(p): i + 1 for i, p in enumerate(shown)}
    spare = MAX_LAYERS - len(placed)
    for p in placed:
        inverse = _inverse(p[4], p[5])
        if spare and rng.random() < 0.3:
            spare -= 1
            shift = np.array([rng.uniform(0.004, 0.03), rng.uniform(0.006, 0.03)])
            black = plain_color((0, 0, 0))
            dark = Layer(p[3], _inverse(p[4], p[5] + shift), black, rng.uniform(0.2, 0.5), 0, 2, p[9])
            scene.layers.append(dark)
        soft = rng.choice((0, 0, 0, 0, 1))
        scene.layers.append(Layer(p[3], inverse, p[6], 1.0, rank.get(id(p), 0), soft, p[9]))
    if rng.random() < 0.4:
        scene.light = (rng.uniform(0.85, 1.12), rng.uniform(-0.35, 0.35), rng.uniform(-0.35, 0.35))
    if rng.random() < 0.25:
        scene.grain = rng.uniform(2, 8) / 255
    return scene


# ------------------------------------------------------------------------------------------ arrays for renderers
def mip_level(inverse, side, size, levels, soft=0):
    """The level whose texels are about as large as the picture's pixels"""
    a = np.asarray(inverse)
    texels = side * math.sqrt(abs(a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0])) / size
    return int(min(levels - 1, max(0, math.floor(math.log2(max(texels, 1e-6)) + 0.5) + soft)))


ROW = 28  # a layer as numbers: texel offset, width of its level, 6 inverse, 12 colour, opacity, object, 6 warp


def rows_of(scene, opened, size):
    """(1 + MAX_LAYERS, ROW) float64 for a picture of `size` pixels: the background, then the layers, unused ones zero.

    The first two are whole numbers: where the level's texels start in the atlas, and how wide it is."""
    from wide.archive import GROUND_LEVELS, SPRITE_LEVELS

    out = np.zeros((1 + MAX_LAYERS, ROW))
    k = mip_level(scene.ground_inverse, opened.ground_side, size, GROUND_LEVELS)
    out[0, :2] = scene.ground * opened.ground_span + opened.ground_starts[k], opened.ground_side >> k
    out[0, 2:8], out[0, 8:20] = scene.ground_inverse.ravel(), scene.ground_color.ravel()
    out[0, 20] = 1
    for i, layer in enumerate(scene.layers):
        k = mip_level(layer.inverse, opened.side, size, SPRITE_LEVELS, layer.soft)
        out[1 + i, :2] = layer.sprite * opened.span + opened.starts[k], opened.side >> k
        out[1 + i, 2:8], out[1 + i, 8:20] = layer.inverse.ravel(), layer.color.ravel()
        out[1 + i, 20:] = layer.opacity, layer.object, *layer.warp
    return out


def arrays(scenes, opened, size):
    """Scenes as arrays for a device: where (B, 1 + K, 2) int32, params (B, 1 + K, 20), light (B, 4), seed (B,)"""
    rows = np.stack([rows_of(s, opened, size) for s in scenes])
    return {
        "where": rows[..., :2].astype(np.int32),
        "params": rows[..., 2:].astype(np.float32),
        "light": np.array([[*s.light, s.grain] for s in scenes], np.float32),
        "seed": np.array([s.seed for s in scenes], np.int64),
    }
