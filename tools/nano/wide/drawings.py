"""Drawings and photographed cut-outs that are named one by one: clip art, stamps, icons of desktops and games.

`drawings.txt` has a row for each: package|file|noun. The file is a path below the folder that `sources.py` gives for
the package, `bundle.rcc!name` for a picture inside a Qt bundle, or an icon's name in an icon set. Every one was looked
at: it shows its noun plainly, and is neither a held-out cut-out of that noun nor a rendering of one in another colour.
All of them are for training; they stand last in the archive, so that what was packed before keeps its number.
"""

import gzip
import io
import json
import os

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from wide import qt_resources, sources
from wide.cutouts import SIDE, Cutout, icon_svg, trim
from wide.nouns import HERE

LARGEST = 4 * SIDE  # a picture is shrunk to this before it is trimmed
WHITE = 236  # from here on a background counts as white


def rows():
    """[(package without its scope, file, noun)] of drawings.txt"""
    with open(os.path.join(HERE, "drawings.txt"), encoding="utf-8") as f:
        return [tuple(line.rstrip("\n").split("|")) for line in f if line.strip() and not line.startswith("#")]


def without_white(image):
    """A picture that has no transparency and lies on white: what is white and joined to its edge becomes transparent"""
    pixels = np.asarray(image)
    white = pixels[..., :3].min(-1) > WHITE
    edge = np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]])
    if (pixels[..., 3] < 250).mean() > 0.005 or edge.mean() < 0.6:
        return image
    mask = Image.fromarray(np.pad(white, 1, constant_values=True).astype(np.uint8) * 255).copy()
    ImageDraw.floodfill(mask, (0, 0), 128)
    seen = Image.fromarray(((np.asarray(mask) != 128)[1:-1, 1:-1] * 255).astype(np.uint8))
    image = image.copy()
    image.putalpha(seen.filter(ImageFilter.MinFilter(3)))  # one pixel less: no white seam
    return image


def rasterize(svg):
    """A drawing of any proportions, 2 * SIDE wide; lengths in points and the like as at 96 dots per inch"""
    import resvg_py  # needed for packing alone

    data = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIDE, dpi=96.0, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")


def opened(data, name):
    """A file's bytes -> RGBA, on nothing"""
    if name.endswith(".svgz"):
        data, name = gzip.decompress(data), name[:-1]
    if name.endswith(".svg"):
        try:
            return rasterize(data.decode())
        except UnicodeDecodeError:
            return rasterize(data.decode("latin-1"))
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST), Image.LANCZOS, reducing_gap=2)
    return without_white(image)


def _content(folder, name):
    path, _, member = name.partition("!")
    path = os.path.join(folder, path)
    if member:
        found = qt_resources.read(path, lambda n: n.endswith("/" + member))
        return found[min(found)]
    with open(path, "rb") as f:
        return f.read()


def drawings(cache, tier="open"):
    """The cut-outs of drawings.txt whose package is in the tier, in the order of its rows"""
    named = {}  # a package may serve twice; what is drawn in it has a source of its own
    for s in sources.chosen(tier):
        short = s.package.rpartition("/")[2]
        if s.use == "drawings" or (s.use == "icons" and short not in named):
            named[short] = s
    folder, icons = {}, {}
    for short, name, noun in rows():
        if short not in named:
            continue
        s = named[short]
        path = sources.file_of(s, cache)
        if s.registry == "npm":
            if short not in icons:
                icons[short] = json.loads(sources.read_npm(path, ["icons.json"])["icons.json"])
            image = rasterize(icon_svg(icons[short], name))
        else:
            if short not in folder:
                unpacked = sources.unpack(path, os.path.join(cache, "unpacked", s.package))
                folder[short] = os.path.join(unpacked, s.below)
            image = opened(_content(folder[short], name), name.lower())
        image = trim(image)
        if image is None:
            raise ValueError(f"{short}: expected something visible in {name}, found nothing")
        yield Cutout(noun, s.family, f"{short}:{name.rpartition('/')[2]}", False, image)
