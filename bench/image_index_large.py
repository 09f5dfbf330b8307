"""An image index of 5,000 pictures: time, memory, what is found, and a build that is killed; for docs/image-index.md.

    python bench/image_index_large.py [--count 5000] [--photos FOLDER] [--kills 5] [--threads N] [--work FOLDER]

Four of five pictures are scenes of nano's world that no training saw. With --photos the others are crops of the
photographs in that folder (a side of 35 to 100 % each, JPEG at 85), so that many of them are alike; without it they are
scenes, too. Queries of known answers: a scene's objects on another background; a crop that was made darker, smaller
and compressed again (find that crop among all of its photograph); a new crop of a photograph (how many of the ten
nearest are of it). The index is built by the command, undisturbed and killed (SIGKILL) at random instants; both must
have the same vectors.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageEnhance

import kosmos_edge
from kosmos_edge.apps.index import PictureIndex
from kosmos_edge.quality.nano_world import HELD_OUT_SEED, render, sample_scene

KS = (1, 5, 10)
SEED = 20261130


def crop(photo: Image.Image, source: random.Random) -> Image.Image:
    """A part of a photograph, at most 480 pixels wide or high."""
    share = source.uniform(0.35, 1.0)
    width, height = int(photo.width * share), int(photo.height * share)
    left, top = source.randint(0, photo.width - width), source.randint(0, photo.height - height)
    part = photo.crop((left, top, left + width, top + height))
    part.thumbnail((480, 480))
    return part


def worse(picture: Image.Image) -> Image.Image:
    """The picture as it may come back from elsewhere: darker, smaller, compressed."""
    small = picture.resize((max(1, picture.width * 6 // 10), max(1, picture.height * 6 // 10)))
    data = io.BytesIO()
    ImageEnhance.Brightness(small).enhance(0.75).save(data, "JPEG", quality=35)
    return Image.open(io.BytesIO(data.getvalue())).convert("RGB")


def make(folder: Path, count: int, photos: list[Path]) -> tuple[list[Path], list[Path]]:
    """(scenes, crops); photo-N-.. is a crop of the N-th photograph."""
    scenes, crops = [], []
    several = count // 5 if photos else 0
    for number in range(count - several):
        path = folder / f"scene-{number:05}.png"
        if not path.exists():
            render(sample_scene(HELD_OUT_SEED + number)).save(path, compress_level=1)
        scenes.append(path)
    source = random.Random(SEED)
    opened = [Image.open(path).convert("RGB") for path in photos]
    for picture in opened:
        picture.thumbnail((1200, 1200))
    for number in range(several):
        which = number % len(opened)
        path = folder / f"photo-{which}-{number:05}.jpg"
        part = crop(opened[which], source)
        if not path.exists():
            part.save(path, quality=85)
        crops.append(path)
    return scenes, crops


def build(folder: Path, index: Path, threads: int | None, kill_after: float | None = None) -> tuple[float, bool]:
    """(seconds, whether it came to its end) of `kosmos-edge index build`."""
    words = [sys.executable, "-P", "-m", "kosmos_edge", "index", "build", folder, "-o", index, "-m", "nano", "-q"]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [os.fspath(word) for word in words] + ([] if threads is None else ["-t", str(threads)]),
        stdout=subprocess.DEVNULL,
    )
    try:
        code = process.wait(kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return time.perf_counter() - begun, False
    if code:
        raise SystemExit(f"index build ended with status {code}")
    return time.perf_counter() - begun, True


def recalls(index: PictureIndex, queries: list[tuple[Image.Image, Path]]) -> dict[str, float]:
    """How often the right picture is among the k nearest."""
    found = [[hit.path for hit in index.search_image(query, max(KS)).hits] for query, _ in queries]
    return {
        f"recall@{k}": sum(os.fspath(right) in paths[:k] for paths, (_, right) in zip(found, queries, strict=True))
        / len(queries)
        for k in KS
    }


def quality(index: PictureIndex, scenes: list[Path], crops: list[Path], photos: list[Path]) -> dict[str, object]:
    """Figures of searches."""
    source = random.Random(SEED + 1)
    queries = []
    for number in source.sample(range(len(scenes)), min(200, len(scenes))):
        scene = copy.deepcopy(sample_scene(HELD_OUT_SEED + number))
        scene.background = sample_scene(HELD_OUT_SEED + 500_000 + number).background
        queries.append((render(scene), scenes[number]))
    begun = time.perf_counter()
    figures: dict[str, object] = {"scenes, other background": recalls(index, queries)}
    figures["ms a search, encoding included"] = round((time.perf_counter() - begun) * 1000 / len(queries), 1)
    if crops:
        some = source.sample(crops, min(200, len(crops)))
        figures["crops, made worse"] = recalls(index, [(worse(Image.open(path).convert("RGB")), path) for path in some])
        right = total = 0
        for which, path in enumerate(photos):
            photo = Image.open(path).convert("RGB")
            photo.thumbnail((1200, 1200))
            for _ in range(10):
                hits = index.search_image(crop(photo, source), 10).hits
                right += sum(Path(hit.path).name.startswith(f"photo-{which}-") for hit in hits)
                total += len(hits)
        figures["new crops: of the ten nearest, of the same photograph"] = round(right / total, 3)
    return figures


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--photos", type=Path, help="folder with photographs")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--work", type=Path, help="folder for the pictures, which stay (default: a temporary one)")
    arguments = parser.parse_args()
    photos = sorted(p for p in arguments.photos.iterdir() if p.suffix in (".jpg", ".png")) if arguments.photos else []
    with tempfile.TemporaryDirectory() as name:
        work = (arguments.work or Path(name)).resolve()
        folder = work / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        scenes, crops = make(folder, arguments.count, photos)
        one, other = Path(name) / "one.index", Path(name) / "other.index"
        seconds, _ = build(folder, one, arguments.threads)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        again, _ = build(folder, one, arguments.threads)
        source, killed = random.Random(), 0
        for _ in range(arguments.kills):
            killed += not build(folder, other, arguments.threads, source.uniform(0.2, 0.2 + 0.5 * seconds))[1]
        build(folder, other, arguments.threads)
        paths = [*scenes, *crops]
        with kosmos_edge.load("nano") as model, PictureIndex(one, model) as index, PictureIndex(other, model) as second:
            figures = {
                "pictures": len(index),
                "scenes": len(scenes),
                "crops": len(crops),
                "seconds": round(seconds, 1),
                "images/s": round(len(paths) / seconds, 1),
                "seconds of a build that changes nothing": round(again, 1),
                "peak memory, MB": round(peak),
                "bytes of the index": one.stat().st_size,
                "kills": killed,
                "same vectors after them": index.vectors(paths).tobytes() == second.vectors(paths).tobytes(),
                **quality(index, scenes, crops, photos),
            }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
