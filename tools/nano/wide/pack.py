"""One archive with everything that scenes are made of, so that training needs neither packages nor a network.

    python -m wide.pack --cache CACHE --out world.zip            # about 33 MB; minutes, mostly rendering

The archive is a plain zip: `index.json` (what each picture is, its split, outline, licence source) and the pictures:
    sprites/NNNNN.webp    cut-outs, shapes, words and numbers, RGBA, lossless up to a palette's worth, at most 128 px
    grounds/NNNN.webp     backgrounds, 256 x 256 RGB: crops of photographs, and grey masks of v0's patterns
    photos/NNNN.jpg       the middle square of each photograph for measuring false claims; never a background
Splits: "train", and "test" = a design family (or font, or photograph) held out for that very noun.
"""

import argparse
import io
import json
import os
import random
import zipfile

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from world import definition

from wide import grounds, measuring, sources
from wide.cutouts import SIDE, gather, trim
from wide.drawings import drawings
from wide.nouns import nouns

GROUND = 256
TEST_PHOTOS = 0.6  # share of the photographs kept away from the backgrounds, for the measure of false claims
MIN_CUTOUTS = 6
MIN_FAMILIES = 4
UNKNOWN_SHARE = 0.12  # of the nouns, kept out of the vocabulary: things that nano is to pass over in silence
HULL_POINTS = 24
WORDS = [
    "stop",
    "go",
    "open",
    "closed",
    "exit",
    "left",
    "right",
    "up",
    "down",
    "yes",
    "no",
    "love",
    "peace",
    "home",
    "sale",
    "free",
    "hello",
    "bye",
    "welcome",
    "sorry",
    "thanks",
    "please",
    "danger",
    "help",
    "hot",
    "cold",
    "big",
    "small",
    "new",
    "old",
    "push",
    "pull",
    "tea",
    "milk",
    "bread",
    "bank",
    "hotel",
    "taxi",
    "police",
    "north",
    "south",
    "east",
    "west",
    "day",
    "night",
    "red",
    "green",
    "blue",
]
NUMBERS = [str(n) for n in range(21)]


# ------------------------------------------------------------------------------------------ outlines
def outline(alpha):
    """Corner points of the visible part's convex hull, in -1..1 of the sprite's square, (k, 2), at most HULL_POINTS.

    The extent of the turned points is the extent of the turned picture, so boxes need no pixels."""
    seen = np.asarray(alpha) > 24
    rows = np.flatnonzero(seen.any(1))
    points = []
    for y in rows:
        xs = np.flatnonzero(seen[y])
        points += [(xs[0], y), (xs[-1] + 1, y), (xs[0], y + 1), (xs[-1] + 1, y + 1)]
    points = np.array(sorted(set(points)), float)
    angles = np.arange(HULL_POINTS) * 2 * np.pi / HULL_POINTS  # support points: exact along these directions
    best = [points[np.argmax(points @ (np.cos(a), np.sin(a)))] for a in angles]
    kept = np.array(list(dict.fromkeys(map(tuple, best))))
    offset = ((SIDE - seen.shape[1]) // 2, (SIDE - seen.shape[0]) // 2)  # where the square's loader puts the picture
    return ((kept + offset - SIDE / 2) / (SIDE / 2)).round(4).tolist()


# ------------------------------------------------------------------------------------------ sprites
def shape_sprites(per_shape=12):
    """The twelve shapes of v0 as white masks; the last third of each shape's variants is held out."""
    for s, shape in enumerate(definition.SHAPES):
        for v in range(per_shape):
            rng = random.Random(f"shape {shape} {v}")
            p = np.array(definition._unit_polygon(shape, rng))
            p = p - p.min(0)
            p = p / p.max() * 4 * SIDE
            mask = Image.new("L", [int(np.ceil(x)) for x in p.max(0)])
            ImageDraw.Draw(mask).polygon([tuple(q) for q in p.tolist()], fill=255)
            image = Image.new("RGBA", mask.size, (255, 255, 255, 0))
            image.putalpha(mask)
            yield {
                "kind": "shape", "name": shape, "tint": True, "image": trim(image),
                "key": f"shape:{s}:{v}", "split": "test" if v >= per_shape * 2 // 3 else "train",
            }  # fmt: skip


def fonts_in(cache, tier):
    out = []
    for s in sources.chosen(tier):
        if s.use == "font":
            folder = sources.unpack(sources.file_of(s, cache), os.path.join(cache, "unpacked", s.package))
            found = sorted(
                os.path.join(r, f) for r, _, names in os.walk(folder) for f in names if f.endswith((".ttf", ".otf"))
            )
            plain = [f for f in found if "Italic" not in f and "Condensed" not in f and "Thin" not in f]
            out += [(s.package, f) for f in plain if "Bold" in f][:2] + [
                (s.package, f) for f in plain if "Bold" not in f
            ][:1]
    return out


def text_sprites(cache, tier):
    """Words and numbers, three fonts of each package; for every text two packages are held out."""
    fonts = fonts_in(cache, tier)
    packages = sorted({p for p, _ in fonts})
    for kind, words in (("word", WORDS), ("number", NUMBERS)):
        for text in words:
            held = set(random.Random(f"font {text}").sample(packages, 2))
            chosen = random.Random(f"faces {text}").sample(fonts, min(len(fonts), 14))
            for package, path in chosen:
                rng = random.Random(f"{text} {path}")
                said = rng.choice((text, text.upper(), text.capitalize()))
                font = ImageFont.truetype(path, 160)
                x0, y0, x1, y1 = font.getbbox(said)
                image = Image.new("RGBA", (x1 - x0 + 8, y1 - y0 + 8), (255, 255, 255, 0))
                mask = Image.new("L", image.size)
                ImageDraw.Draw(mask).text((4 - x0, 4 - y0), said, fill=255, font=font)
                image.putalpha(mask)
                yield {
                    "kind": kind, "name": text, "tint": True, "image": trim(image),
                    "key": f"{os.path.basename(path)}:{said}", "split": "test" if package in held else "train",
                }  # fmt: skip


def held_families(cutouts):
    """For one noun: one colour design and one mono design to hold out, never the one with most pictures"""
    held = set()
    for tint in (False, True):
        families = sorted({c.family for c in cutouts if c.tint == tint})
        if len(families) >= (3 if held else MIN_FAMILIES - 1):
            counts = {f: sum(c.family == f for c in cutouts) for f in families}
            most = max(families, key=counts.get)
            free = [f for f in families if f != most and f not in held]
            held.add(random.Random(f"held {cutouts[0].noun} {tint}").choice(free))
    return held


def noun_sprites(cache, tier):
    """Cut-outs of all nouns with enough of them; a few nouns are put aside as things unknown."""
    by_noun = {}
    for c in gather(cache, tier):
        by_noun.setdefault(c.noun, []).append(c)
    enough = [
        n.name
        for n in nouns()
        if len(by_noun.get(n.name, ())) >= MIN_CUTOUTS and len({c.family for c in by_noun[n.name]}) >= 3
    ]
    unknown = random.Random("unknown nouns").sample(enough, round(UNKNOWN_SHARE * len(enough)))
    for noun in enough:
        held = held_families(by_noun[noun])
        for c in by_noun[noun]:
            if noun in unknown:  # half of the unknown nouns are met in training, half only in testing
                kind, split = "unknown", ("test" if unknown.index(noun) % 2 else "train")
            else:
                kind, split = "noun", ("test" if c.family in held else "train")
            yield {"kind": kind, "name": noun, "tint": c.tint, "image": c.image, "key": c.key, "split": split}


def drawn_sprites(cache, tier, placed):
    """What drawings.txt names, all for training; the designs held out among the rows `placed` so far stay unseen"""
    family = {s.package.rpartition("/")[2]: s.family for s in sources.SOURCES}
    held = {
        (s["name"], family[s["key"].partition(":")[0]]) for s in placed if s["kind"] == "noun" and s["split"] == "test"
    }
    for c in drawings(cache, tier):
        if (c.noun, c.family) in held:
            raise ValueError(f"drawings.txt: {c.key} is of the design {c.family}, which is held out for {c.noun}")
        yield {"kind": "noun", "name": c.noun, "tint": False, "image": c.image, "key": c.key, "split": "train"}


# ------------------------------------------------------------------------------------------ backgrounds
def pattern_grounds():
    """Grey masks of v0's patterns: 0 where the first tone shows, 255 where the second; they tile."""
    line = np.arange(GROUND) / GROUND
    wave = {n: np.clip(np.sin(2 * np.pi * n * line) * GROUND / (4 * n), -1, 1) for n in (3, 4, 5, 7, 9, 12)}
    yield "plain", 0, np.zeros((GROUND, GROUND))
    ramp = np.tile(np.minimum(line, 1 - line) * 2, (GROUND, 1))
    yield "gradient", 0, ramp * 255
    for n, w in wave.items():
        yield "striped", n, np.tile(w * 127.5 + 127.5, (GROUND, 1))
    for n in (3, 4, 5, 7):
        yield "checkered", n, wave[n][:, None] * wave[n][None] * 127.5 + 127.5
    for k, grain in enumerate((28, 40, 64, 100)):
        noise = np.random.default_rng(k).normal(0.5, 0.22, (grain, grain)).clip(0, 1)
        tiled = Image.fromarray((np.tile(noise, (3, 3)) * 255).astype(np.uint8)).resize(
            (3 * GROUND,) * 2, Image.BILINEAR
        )
        yield "noisy", grain, np.asarray(tiled)[GROUND : 2 * GROUND, GROUND : 2 * GROUND]


def remarks():
    """photos.txt -> (names left out, names of drawn pictures, names held out but not measured on)"""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "photos.txt"), encoding="utf-8") as f:
        parts = f.read().split("[")
    return [set(p.partition("]")[2].split()) for p in parts[1:]]


def photograph_paths(cache, tier):
    """-> photographs, drawn pictures: [(package, path)] each, without those listed as showing what nano knows"""
    left_out, drawn, _ = remarks()
    out = [], []
    for s in sources.chosen(tier):
        if s.use == "photos":
            folder = sources.unpack(sources.file_of(s, cache), os.path.join(cache, "unpacked", s.package))
            for p in sources.pictures_below(folder, s.below):
                names = {os.path.splitext(os.path.basename(p))[0], *os.path.relpath(p, folder).split(os.sep)}
                if not names & left_out:
                    out[bool(names & drawn)].append((s.package, p))
    return out


def measured(held_out):
    """Of the photographs held out of the backgrounds' packages, those without anything known"""
    unclear = remarks()[2]
    return [(s, p) for s, p in held_out if os.path.splitext(os.path.basename(p))[0] not in unclear]


def opened(file, side):
    """A picture (a path or an open file) with its shorter side made `side` long"""
    im = Image.open(file)
    im.draft("RGB", (2 * side, 2 * side))
    im = im.convert("RGB")
    scale = side / min(im.size)
    return im.resize([max(side, round(v * scale)) for v in im.size], Image.LANCZOS, reducing_gap=2.0)


def crops(image, side, count, rng):
    """Up to `count` squares of a picture, the first from the middle, none overlapping another by half"""
    free = max(image.size) - side
    at = [free // 2] + [rng.randint(0, free) for _ in range(6 * count) if count > 1]
    kept = []
    for v in at:
        if len(kept) < count and all(abs(v - k) >= side * 0.5 for k in kept):
            kept.append(v)
    wide = image.width > image.height
    return [image.crop((v, 0, v + side, side) if wide else (0, v, side, v + side)) for v in kept]


def added_grounds(cache, tier):
    """Yields (key, picture of GROUND x GROUND): the views of the photographs added to the training backgrounds"""
    for key, file in grounds.photographs(cache, tier):
        for view in grounds.views(opened(file, grounds.SIDE), random.Random(f"view {key}"), crops):
            yield key, view.resize((GROUND, GROUND), Image.LANCZOS)


# ------------------------------------------------------------------------------------------ the archive
def _encoded(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def pack(cache, out, tier="open"):
    index = {"side": SIDE, "ground": GROUND, "sprites": [], "grounds": [], "photos": []}
    with zipfile.ZipFile(out + ".tmp", "w", zipfile.ZIP_STORED) as z:

        def put(name, data):
            z.writestr(zipfile.ZipInfo(name), data)  # a fixed date: the same inputs give the same archive

        def put_sprites(made):
            for s in made:
                image = s.pop("image")
                if image is None:
                    continue
                name = f"sprites/{len(index['sprites']):05d}.webp"
                if s["tint"]:
                    data = _encoded(image.getchannel("A"), "WEBP", quality=90, method=4)
                else:
                    data = _encoded(image, "WEBP", quality=88, alpha_quality=90, method=4, exact=False)
                put(name, data)
                index["sprites"].append({"file": name, **s, "hull": outline(image.getchannel("A"))})

        for made in (shape_sprites(), text_sprites(cache, tier), noun_sprites(cache, tier)):
            put_sprites(made)
        for kind, period, mask in pattern_grounds():
            name = f"grounds/{len(index['grounds']):04d}.webp"
            put(name, _encoded(Image.fromarray(np.asarray(mask).round().astype(np.uint8)), "WEBP", lossless=True))
            index["grounds"].append({"file": name, "kind": kind, "period": period, "split": "train", "key": "pattern"})
        real, drawn = photograph_paths(cache, tier)
        real.sort(key=lambda p: random.Random(f"photo {os.path.basename(p[1])}").random())
        shown = round(TEST_PHOTOS * len(real))
        for key, image in measuring.photographs(cache, tier, measured(real[:shown])):
            name = f"photos/{len(index['photos']):04d}.jpg"
            put(name, _encoded(crops(opened(image, 448), 448, 1, None)[0], "JPEG", quality=85))
            index["photos"].append({"file": name, "key": key})
        for rank, (package, path) in enumerate(real[shown:] + drawn):
            rng = random.Random(f"crop {os.path.basename(path)}")
            picture = opened(path, 512)
            cut = crops(picture, 512, 3, rng)
            for _ in range(2):  # closer looks: texture instead of subject
                x, y = rng.randint(0, picture.width - GROUND), rng.randint(0, picture.height - GROUND)
                cut.append(picture.crop((x, y, x + GROUND, y + GROUND)))
            for c in cut:
                name = f"grounds/{len(index['grounds']):04d}.webp"
                put(name, _encoded(c.resize((GROUND, GROUND), Image.LANCZOS), "WEBP", quality=80))
                row = {"file": name, "kind": "photo", "period": 0, "key": f"{package}:{os.path.basename(path)}"}
                index["grounds"].append({**row, "split": "test" if rank % 6 == 0 else "train"})
        # last: all that stands before is the same with and without them
        put_sprites(drawn_sprites(cache, tier, list(index["sprites"])))
        for key, picture in added_grounds(cache, tier):  # last, so that earlier backgrounds keep their numbers
            name = f"grounds/{len(index['grounds']):04d}.webp"
            put(name, _encoded(picture, "WEBP", quality=80))
            index["grounds"].append({"file": name, "kind": "photo", "period": 0, "key": key, "split": "train"})
        put("index.json", json.dumps(index).encode())
    os.replace(out + ".tmp", out)
    return index


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--cache", required=True, help="what wide.sources filled")
    ap.add_argument("--out", required=True)
    ap.add_argument("--tier", choices=sources.TIERS, default="open")
    a = ap.parse_args()
    index = pack(a.cache, a.out, a.tier)
    sprites = index["sprites"]
    for kind in ("noun", "shape", "word", "number", "unknown"):
        part = [s for s in sprites if s["kind"] == kind]
        held = sum(s["split"] == "test" for s in part)
        print(f"{kind:8} {len({s['name'] for s in part}):4} names, {len(part):5} pictures, {held} held out")
    print(f"{len(index['grounds'])} backgrounds")
    print(f"{len(index['photos'])} photographs for measuring false claims")
    print(f"{a.out}: {os.path.getsize(a.out) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
