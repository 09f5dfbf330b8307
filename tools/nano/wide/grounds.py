"""Photographs added to the training backgrounds: people, interiors, streets, buildings, grounds, skies, food.

`grounds.txt` lists them by package and folder. Each was looked at: it shows none of the known things, and is no
photograph for measuring false claims or held-out background, nor another crop or size of one (perceptual hash, by eye).
Some lie in packages of photographs for measuring; those are other photographs of other things.
"""

from wide import measuring, sources

SIDE = 512  # a photograph's shorter side before cutting
CLOSER = 384  # the side of a closer look, for a photograph that is too square for two views
VIEWS = 2


def photographs(cache, tier):
    """Yields ("package:path", path or open file) of every photograph of grounds.txt, package by package"""
    by_name = {s.package: s for s in sources.chosen(tier)}
    for package, names in measuring.listed("grounds.txt").items():
        if package not in by_name:
            raise ValueError(f"grounds.txt names the package {package}, which is no source of the tier {tier}")
        yield from measuring.members(by_name[package], cache, names)


def views(picture, rng, crops):
    """Two squares of a picture whose shorter side is SIDE: the middle, and beside it or, lacking room, a closer look.

    `crops`: pack.crops"""
    cut = crops(picture, SIDE, VIEWS, rng)
    if len(cut) < VIEWS:
        x, y = rng.randint(0, picture.width - CLOSER), rng.randint(0, picture.height - CLOSER)
        cut.append(picture.crop((x, y, x + CLOSER, y + CLOSER)))
    return cut
