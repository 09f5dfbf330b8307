"""From packages to cut-outs: every picture of a noun that the sources hold, as RGBA trimmed to what is visible.

`nouns.txt` maps a noun to names in the packages; `pruned.txt` lists the pictures that by eye do not show their noun.
A mono cut-out is one colour and has none of its own: it is kept as white with alpha and takes a colour in a scene.
"""

import io
import json
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from wide import sources
from wide.nouns import HERE, nouns

SIDE = 128  # a cut-out fills a square of this side, less its empty margin
EDGE = 24  # alpha from which a pixel counts as seen
# what icon sets append to a name; at most PER_SET variants of a mono icon are taken
VARIANTS = ("", "-fill", "-filled", "-solid", "-bold", "-duotone", "-bold-duotone", "-twotone", "-line", "-outline")
VARIANTS += ("-01", "-alt", "-2", "-1", "-rounded", "-fill-rounded", "-outline-rounded", "-side", "-broken", "-linear")
PER_SET = 2


@dataclass
class Cutout:
    noun: str
    family: str
    key: str  # package:name, what credits and pruning speak of
    tint: bool
    image: Image.Image  # RGBA, trimmed, longer side SIDE


def pruned():
    with open(os.path.join(HERE, "pruned.txt"), encoding="utf-8") as f:
        return {w for line in f if not line.startswith("#") for w in line.split()}


def trim(image):
    """Cut to the visible box and bring the longer side to SIDE; None if hardly anything is visible"""
    image = image.convert("RGBA")
    seen = np.asarray(image)[..., 3] > EDGE
    if seen.sum() < 60:
        return None
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    image = image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    scale = SIDE / max(image.size)
    return image.resize([max(1, round(v * scale)) for v in image.size], Image.LANCZOS, reducing_gap=None)


def icon_svg(icons, name):
    icon = icons["icons"][name]
    w, h = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
    body = icon["body"].replace("currentColor", "#000000")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {w} {h}" width="{w}" height="{h}">{body}</svg>'
    )


def rasterize(svg, side=2 * SIDE):
    import resvg_py  # needed for packing alone

    data = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")


def _whitened(image):
    """White with the picture's alpha"""
    out = Image.new("RGBA", image.size, (255, 255, 255, 0))
    out.putalpha(image.getchannel("A"))
    return out


def _resolve(icons, name):
    """An icon's own name, through its set's aliases (turned or mirrored ones are left out)"""
    if name in icons["icons"]:
        return name
    alias = icons.get("aliases", {}).get(name, {})
    if "parent" in alias and not {"rotate", "hFlip", "vFlip"} & set(alias):
        return alias["parent"] if alias["parent"] in icons["icons"] else None
    return None


def _names_in(source, icons, noun):
    """Names of a set's icons that show a noun, each once"""
    emoji_set = source.style == "colour" or "emoji" in source.package
    found = [_resolve(icons, n) for n in noun.emoji] if emoji_set else []
    if not any(found):
        variants = [_resolve(icons, n + v) for n in noun.icons for v in VARIANTS]
        found = list(dict.fromkeys(filter(None, variants)))[:PER_SET]
    return list(dict.fromkeys(filter(None, found)))


def _icons(source, path, wanted, skip):
    icons = json.loads(sources.read_npm(path, ["icons.json"])["icons.json"])
    for noun in wanted:
        for name in _names_in(source, icons, noun):
            key = f"{source.package.rpartition('/')[2]}:{name}"
            if key in skip or f"{key}>{noun.name.replace(' ', '_')}" in skip:
                continue
            image = trim(rasterize(icon_svg(icons, name)))
            if image is not None:
                mono = source.style == "mono"
                yield Cutout(noun.name, source.family, key, mono, _whitened(image) if mono else image)


def _emoji_3d(source, path, names, wanted, skip):
    files = sources.read_npm(path, ["assets/"])
    code = {d["slug"].replace("_", "-"): e for e, d in names.items()}
    for noun in wanted:
        for name in noun.emoji:
            e = code.get(name, "")
            spellings = ("-".join(f"{ord(c):04x}" for c in s) for s in (e, e.replace("\ufe0f", "")))
            data = next((files[p] for s in spellings if (p := f"assets/{s}.webp") in files), None)
            key = f"fluent-emoji-3d:{name}"
            if data and key not in skip:
                image = trim(Image.open(io.BytesIO(data)))
                if image is not None:
                    yield Cutout(noun.name, source.family, key, False, image)


def gather(cache, tier="open"):
    """Every cut-out of every noun, in a fixed order."""
    wanted, skip = nouns(), pruned()
    every = sources.chosen(tier)
    path = {s.package: sources.file_of(s, cache) for s in every}
    names = json.loads(sources.read_npm(path["unicode-emoji-json"], ["data-by-emoji.json"])["data-by-emoji.json"])
    out = []
    for s in every:
        if s.use == "icons":
            out += _icons(s, path[s.package], wanted, skip)
        elif s.use == "emoji3d":
            out += _emoji_3d(s, path[s.package], names, wanted, skip)
    return out
