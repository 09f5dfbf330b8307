"""The part of nano's world that needs no pictures: flat shapes of twelve kinds and ten colours on quiet backgrounds.

A `Scene` is a description in numbers (no pixels), drawn from a seed by `sample_scene`; `render` paints it at any size,
with Pillow alone. This is the one definition: nano's recipe (tools/nano) trains on these scenes, and
`kosmos-edge bench quality` asks about those from HELD_OUT_SEED on, which no training sees.

Every shape is one polygon (a ring is one with a seam), so its box is the exact extent of its points. All coordinates
are fractions of the picture's side, x to the right, y downwards.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from PIL import Image, ImageChops, ImageDraw

Points: TypeAlias = list[tuple[float, float]]
Corners: TypeAlias = tuple[float, float, float, float]
Color: TypeAlias = tuple[float, ...]

IMAGE_SIZE = 112  # what the model sees
MAX_OBJECTS = 4
SHAPES = (
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
)
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
COLOR_NAMES = tuple(COLORS)
BACKGROUNDS = ("plain", "gradient", "noisy", "striped", "checkered")
TONES = ("dark", "light")

TRAIN_SEED = 0  # scenes TRAIN_SEED + 0, 1, 2, ... are trained on
HELD_OUT_SEED = 900_000_000  # scenes from here on never are

MIN_CONTRAST = 95.0  # Euclidean RGB distance of an object's colour from every tone of the background
MAX_HIDDEN = 0.12  # share of an object that a later one may cover
SIZES = {1: (30, 64), 2: (27, 56), 3: (25, 48), 4: (24, 42)}  # longest side in pixels of 112, by number of objects
PERIODS = {"striped": (0.09, 0.25), "checkered": (0.14, 0.36), "noisy": (0.009, 0.036)}  # stripe, check, grain
# how far a shape may be turned without its name becoming doubtful, in degrees either way
TURN = {"square": 12, "diamond": 12, "cross": 12, "heart": 25, "bolt": 25}
_STRIP = 4096  # samples of a background's profile; many more than a picture has pixels


@dataclass(slots=True)
class Object:
    """One shape in a picture."""

    shape: int
    color: int
    fill: tuple[int, int, int]  # RGB, the named colour with a little jitter
    points: Points  # polygon
    box: Corners  # x1, y1, x2, y2: extent of the points

    @property
    def name(self) -> str:
        """Such as "red circle"."""
        return f"{COLOR_NAMES[self.color]} {SHAPES[self.shape]}"


@dataclass(slots=True)
class Background:
    """The background."""

    kind: int
    tone: int
    base: Color  # RGB
    other: Color  # RGB, the second tone of gradients, stripes and checks
    angle: float = 0.0
    period: float = 0.1  # of stripes, checks and noise grains
    seed: int = 0  # of the noise


@dataclass(slots=True)
class Scene:
    """A picture before it is painted."""

    seed: int
    background: Background
    objects: list[Object] = field(default_factory=list)  # by centre, left to right
    paint_order: list[int] = field(default_factory=list)  # indices into objects, first painted first


# ------------------------------------------------------------------------------------------ shapes
def _arc(radius: float, start: float, stop: float, n: int, cx: float = 0.0) -> Points:
    angles = [start + i * (stop - start) / (n - 1) for i in range(n)]
    return [(cx + radius * math.cos(t), radius * math.sin(t)) for t in angles]


def _around(n: int) -> list[float]:
    return [i * 2 * math.pi / n for i in range(n)]


def _unit_polygon(shape: str, rng: random.Random) -> Points:
    """Points of a shape around the origin; `rng` varies what its name leaves open."""
    if shape == "circle":
        return _arc(1, 0, 2 * math.pi, 48)
    if shape == "square":
        return [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    if shape == "triangle":
        return [(0, -1), (0.95, 0.72), (-0.95, 0.72)]
    if shape == "star":
        radii = (1.0, rng.uniform(0.38, 0.46))
        turned = [t - math.pi / 2 for t in _around(10)]
        return [(radii[i % 2] * math.cos(t), radii[i % 2] * math.sin(t)) for i, t in enumerate(turned)]
    if shape == "ring":
        return _arc(1, 0, 2 * math.pi, 49) + _arc(rng.uniform(0.48, 0.66), 2 * math.pi, 0, 49)
    if shape == "heart":
        return [
            (
                16 * math.sin(t) ** 3 / 17,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17,
            )
            for t in _around(48)
        ]
    if shape == "cross":
        a = rng.uniform(0.27, 0.36)
        quarter = [(-a, -1.0), (a, -1.0), (a, -a)]
        turns = [quarter]
        for _ in range(3):
            turns.append([(-y, x) for x, y in turns[-1]])
        return [point for turn in turns for point in turn]
    if shape == "moon":  # unit circle less a circle of radius r whose centre lies at d
        r, d = rng.uniform(0.76, 0.88), rng.uniform(0.42, 0.52)
        x = (1 + d * d - r * r) / (2 * d)
        outer, inner = math.atan2(math.sqrt(1 - x * x), x), math.atan2(math.sqrt(1 - x * x), x - d)
        return _arc(1, outer, 2 * math.pi - outer, 40) + _arc(r, 2 * math.pi - inner, inner, 32, d)
    if shape == "arrow":
        return [(-1, -0.26), (0.1, -0.26), (0.1, -0.72), (1, 0), (0.1, 0.72), (0.1, 0.26), (-1, 0.26)]
    if shape == "diamond":
        return [(0, -1), (0.6, 0), (0, 1), (-0.6, 0)]
    if shape == "flower":
        petals = [(0.55 + 0.45 * abs(math.cos(2.5 * t)), t) for t in _around(60)]  # five round ones
        return [(r * math.cos(t), r * math.sin(t)) for r, t in petals]
    if shape == "bolt":
        side = rng.choice((-1, 1))
        points = [(0.25, -1), (-0.6, 0.15), (-0.08, 0.15), (-0.3, 1), (0.65, -0.25), (0.1, -0.25), (0.55, -1)]
        return [(x * side, y) for x, y in points]
    raise ValueError(f"unknown shape {shape!r}")


def _placed_polygon(shape: str, longest: float, rng: random.Random) -> Points:
    """A polygon whose longer side is `longest`, its box starting at the origin."""
    points = _unit_polygon(shape, rng)
    stretch = math.sqrt(rng.uniform(0.86, 1.16))
    angle = math.radians(rng.uniform(-1, 1) * TURN.get(shape, 180))
    c, s = math.cos(angle), math.sin(angle)
    points = [(x * stretch * c - y / stretch * s, x * stretch * s + y / stretch * c) for x, y in points]
    x0, y0 = min(x for x, _ in points), min(y for _, y in points)
    points = [(x - x0, y - y0) for x, y in points]
    scale = longest / max(max(point) for point in points)
    return [(x * scale, y * scale) for x, y in points]


# ------------------------------------------------------------------------------------------ scenes
def _sample_background(rng: random.Random) -> Background:
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


def outline_mask(points: Points, size: int) -> Image.Image:
    """A 1-bit picture of a polygon."""
    mask = Image.new("1", (size, size))
    ImageDraw.Draw(mask).polygon([(x * size, y * size) for x, y in points], fill=1)
    return mask


def _area(mask: Image.Image) -> int:
    return sum(mask.histogram()[1:])


def _touches(a: Corners, b: Corners, gap: float) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def sample_scene(seed: int) -> Scene:
    """The scene of a seed: 1..4 objects, each at most MAX_HIDDEN covered, each in contrast to the background."""
    rng = random.Random(seed)
    background = _sample_background(rng)
    palette = [
        number
        for number, name in enumerate(COLOR_NAMES)
        if min(math.dist(COLORS[name], background.base), math.dist(COLORS[name], background.other)) >= MIN_CONTRAST
    ]
    wanted = rng.choices((1, 2, 3, 4), (0.22, 0.3, 0.27, 0.21))[0]
    may_overlap = rng.random() < 0.25
    repeat = rng.random()  # some scenes repeat a shape, a colour or a whole object
    found: list[Object] = []
    masks: list[Image.Image] = []
    for _ in range(wanted * 12):
        if len(found) == wanted:
            break
        shape, color = rng.randrange(len(SHAPES)), rng.choice(palette)
        if found and repeat < 0.18:
            shape = found[0].shape
        if found and 0.10 < repeat < 0.28:
            color = found[0].color
        points = _placed_polygon(SHAPES[shape], rng.uniform(*SIZES[wanted]) / IMAGE_SIZE, rng)
        w, h = max(x for x, _ in points), max(y for _, y in points)
        x0, y0 = rng.uniform(0.01, 0.99 - w), rng.uniform(0.01, 0.99 - h)
        box = (x0, y0, x0 + w, y0 + h)
        if not may_overlap and any(_touches(box, o.box, 0.02) for o in found):
            continue
        points = [(x + x0, y + y0) for x, y in points]
        mask = outline_mask(points, IMAGE_SIZE)
        if any(_area(ImageChops.logical_and(mask, other)) > MAX_HIDDEN * _area(other) for other in masks):
            continue
        light = rng.uniform(0.95, 1.05)
        r, g, b = (int(min(255, max(0, v * light + rng.uniform(-8, 8)))) for v in COLORS[COLOR_NAMES[color]])
        found.append(Object(shape, color, (r, g, b), points, box))
        masks.append(mask)
    order = sorted(range(len(found)), key=lambda i: found[i].box[0] + found[i].box[2])
    return Scene(seed, background, [found[i] for i in order], [order.index(i) for i in range(len(found))])


# ------------------------------------------------------------------------------------------ painting
def _toned(mix: Image.Image, tables: Sequence[Sequence[float]]) -> Image.Image:
    """A grey picture to RGB by one table of 256 values per channel."""
    channels = [mix.point([int(min(255.0, max(0.0, v))) for v in table]) for table in tables]
    return Image.merge("RGB", channels)


def _along(profile: bytes, cx: float, cy: float, low: float, high: float, size: int) -> Image.Image:
    """A grey picture whose tone at (x, y) is the profile's at cx x + cy y; the profile spans low..high."""
    strip = Image.frombytes("L", (_STRIP, 1), profile)
    step = (_STRIP - 1) / (high - low)
    a, b = cx / size * step, cy / size * step
    shift = 0.5 - low * step - (a + b) / 2  # Pillow asks at the centres of pixels
    matrix = (a, b, shift, 0, 0, 0.5)
    return strip.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def _paint_background(ground: Background, size: int) -> Image.Image:
    kind = BACKGROUNDS[ground.kind]
    base, other = ground.base, ground.other
    if kind == "plain":
        r, g, b = (int(v) for v in base)
        return Image.new("RGB", (size, size), (r, g, b))
    if kind == "noisy":
        n = max(8, round(1 / ground.period))
        strength = sum(abs(o - b) for o, b in zip(other, base, strict=True)) / 3 * 0.75
        grains = Image.frombytes("L", (2 * n, 2 * n), random.Random(ground.seed).randbytes(4 * n * n)).reduce(2)
        deviation = math.sqrt((256**2 - 1) / 12 / 4)  # of the mean of four even bytes
        tables = [[b + (k - 127.5) / deviation * strength for k in range(256)] for b in base]
        return _toned(grains, tables).resize((size, size), Image.Resampling.BILINEAR)
    c, s = math.cos(ground.angle), math.sin(ground.angle)
    last = (size - 1) / size
    corners = [x * c + y * s for x in (0, last) for y in (0, last)]
    low, high = min(corners), max(corners)
    at = [low + i * (high - low) / (_STRIP - 1) for i in range(_STRIP)]
    if kind == "gradient":
        mix = _along(bytes(int(i / (_STRIP - 1) * 255) for i in range(_STRIP)), c, s, low, high, size)
    else:
        mix = _along(_stripes(at, ground.period, size), c, s, low, high, size)
        if kind == "checkered":
            corners = [y * c - x * s for x in (0, last) for y in (0, last)]
            low, high = min(corners), max(corners)
            at = [low + i * (high - low) / (_STRIP - 1) for i in range(_STRIP)]
            across = _along(_stripes(at, ground.period, size), -s, c, low, high, size)
            even = ImageChops.multiply(mix, across)
            odd = ImageChops.multiply(ImageChops.invert(mix), ImageChops.invert(across))
            mix = ImageChops.add(even, odd)
    return _toned(mix, [[b + (o - b) * k / 255 for k in range(256)] for b, o in zip(base, other, strict=True)])


def _stripes(at: Sequence[float], period: float, size: int) -> bytes:
    """Stripes with edges of about a pixel."""
    soft, turn = size * period / 2, 2 * math.pi / period
    return bytes(int((min(1.0, max(-1.0, math.sin(u * turn) * soft)) * 0.5 + 0.5) * 255) for u in at)


def render(scene: Scene, size: int = 224) -> Image.Image:
    """Paint a scene at size x size, edges smoothed by 2x supersampling."""
    picture = _paint_background(scene.background, size)
    for i in scene.paint_order:
        o = scene.objects[i]
        x0, y0 = int(o.box[0] * size), int(o.box[1] * size)
        w, h = math.ceil(o.box[2] * size) - x0 + 1, math.ceil(o.box[3] * size) - y0 + 1
        mask = Image.new("L", (2 * w, 2 * h))
        ImageDraw.Draw(mask).polygon([((x * size - x0) * 2, (y * size - y0) * 2) for x, y in o.points], fill=255)
        picture.paste(o.fill, (x0, y0, x0 + w, y0 + h), mask.reduce(2))
    return picture


def truth(scene: Scene) -> dict[str, Any]:
    """The scene as plain data, for a file next to the image."""
    return {
        "seed": scene.seed,
        "background": {"tone": TONES[scene.background.tone], "kind": BACKGROUNDS[scene.background.kind]},
        "objects": [
            {"shape": SHAPES[o.shape], "color": COLOR_NAMES[o.color], "box": [round(float(v), 5) for v in o.box]}
            for o in scene.objects
        ],
    }
