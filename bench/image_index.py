"""How often a search in an image index finds a picture of the same content, on nano's world; for docs/image-index.md.

    python bench/image_index.py [COUNT]

The index has COUNT scenes that no training saw. Queries are the same objects on another background, in place and
mirrored; and the names of objects, "a red circle", ranked by likelihood over the first 60 scenes.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageOps

import kosmos_edge
from kosmos_edge.apps.index import PictureIndex
from kosmos_edge.quality.nano_world import HELD_OUT_SEED, Scene, render, sample_scene

TEXTS = 60  # scenes that names are ranked over


def elsewhere(scene: Scene, seed: int) -> Image.Image:
    """The scene's objects on the background of another."""
    out = copy.deepcopy(scene)
    out.background = sample_scene(seed).background
    return render(out)


def names_of(scene: Scene) -> set[str]:
    """What is in it."""
    return {thing.name for thing in scene.objects}


def main(count: int) -> None:
    """Prints the figures."""
    scenes = [sample_scene(HELD_OUT_SEED + number) for number in range(count)]
    with tempfile.TemporaryDirectory() as name, kosmos_edge.load("nano") as model:
        paths = [Path(name) / f"{number}.png" for number in range(count)]
        for scene, path in zip(scenes, paths, strict=True):
            render(scene).save(path)
        with PictureIndex(Path(name) / "all.index", model) as index:
            index.update(paths)
            for what, mirrored in (("in place", False), ("mirrored", True)):
                places = []
                for number, scene in enumerate(scenes):
                    picture = elsewhere(scene, HELD_OUT_SEED + 500_000 + number)
                    query = ImageOps.mirror(picture) if mirrored else picture
                    found = [hit.path for hit in index.search_image(query, 5).hits]
                    places.append(found.index(str(paths[number])) if str(paths[number]) in found else 5)
                first, five = sum(place == 0 for place in places), sum(place < 5 for place in places)
                print(f"other background, {what}: first {first}/{count}, among five {five}/{count}")
        few = min(TEXTS, count)
        with PictureIndex(Path(name) / "few.index", model) as index:
            index.update(paths[:few])
            asked = sorted(set().union(*(names_of(scene) for scene in scenes[:few])))[:20]
            right, chance = 0, 0.0
            for thing in asked:
                article = "an" if thing[0] in "aeiou" else "a"
                best = index.search_text(f"{article} {thing}", 1).hits[0].path
                right += thing in names_of(scenes[int(Path(best).stem)])
                chance += sum(thing in names_of(scene) for scene in scenes[:few]) / few
            print(f"names by likelihood, {few} scenes: first is right {right}/{len(asked)}, chance {chance:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
