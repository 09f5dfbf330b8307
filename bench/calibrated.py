"""What calibrated quantization gains: a float file in each type, rounded as ever and by its inputs, on new pictures.

    python bench/calibrated.py [--n 200] [--calibrate 60] [--types q4_k_m,q6_k] [--outliers 1,8]
    python bench/calibrated.py --model FLOATS.gguf --calibration FOLDER --pictures FOLDER [--types q4_k_m]
    python bench/calibrated.py --types q4_k_m --sizes 100,90,78        # of the bytes of the first type

Without --model the float file is nano's, with weights off the grids (off_grid.py), with and without outlier
channels; the model is calibrated on scenes of one seed and measured on those of another. Prints the rows of
docs/quantization.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from off_grid import write as write_off_grid
from PIL import Image

from kosmos_edge import _core
from kosmos_edge.calibration import QUESTIONS, CalibrationSet, calibrated_convert, calibration_set, record
from kosmos_edge.convert import requantize
from kosmos_edge.convert.calibrated import Calibration
from kosmos_edge.convert.sizing import Sizing
from kosmos_edge.convert.statistics import recorded
from kosmos_edge.quality.cases import Case, folder_cases, world_cases
from kosmos_edge.quality.measure import measure
from kosmos_edge.quality.sensitivity import measure_groups

ROOT = Path(__file__).resolve().parent.parent
NANO = ROOT / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"
CALIBRATION_SEED = 7  # held-out scenes have seed 0


class Files:
    """For measure(): names instead of types."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files

    @contextmanager
    def file(self, type: str, folder: str | None, cancel: Any = None) -> Iterator[Path]:
        """The file of that name."""
        yield self.files[type]


def sized(floats: Path, things: CalibrationSet, sizes: dict[str, int], folder: Path) -> dict[str, Path]:
    """Files of these sizes, with feedback: as `convert --size --calibrate` makes them, but probed once for all."""
    shapes = {name: tuple(shape) for name, _, shape, *_ in _core.GgufFile(str(floats)).tensors()}
    statistics = recorded(record(floats, things, set()), shapes, [things.name], things.chunks)
    calibration = Calibration(statistics, collect=lambda names: record(floats, things, names))

    @cache
    def groups(types: Sequence[tuple[str, str]]) -> list[tuple[list[str], float]]:
        plain = Calibration(statistics)
        return measure_groups(floats, dict(types), things.pictures, QUESTIONS, folder, calibration=plain)

    files = {}
    for label, size in sizes.items():
        sizing = Sizing(size, statistics)
        sizing.probe = lambda types: groups(tuple(types.items()))
        files[label] = folder / f"{size}.gguf"
        print(*requantize(floats, files[label], size=sizing, calibration=calibration).plan, sep="\n", file=sys.stderr)
    return files


def variants(floats: Path, types: list[str], calibration: Path, folder: Path, sizes: list[int]) -> dict[str, Path]:
    """Each type three times: as ever, with the statistics alone, with feedback; and sizes in % of the first type's."""
    things = calibration_set(calibration)
    files = {"f32": floats}
    for name in types:
        plain, weighted, fed = (folder / f"{name}{end}.gguf" for end in ("", "-imatrix", "-calibrated"))
        requantize(floats, plain, type=name)
        statistics = folder / f"{name}-statistics.gguf"
        calibrated_convert(floats, fed, type=name, things=things, save_imatrix=statistics)
        calibrated_convert(floats, weighted, type=name, imatrix=statistics)
        files |= {name: plain, f"{name}, --imatrix": weighted, f"{name}, --calibrate": fed}
    if sizes:
        whole = files[types[0]].stat().st_size
        wanted = {f"--calibrate --size, {percent} %": whole * percent // 100 for percent in sizes}
        files |= sized(floats, things, wanted, folder)
    return files


def scenes(folder: Path, count: int) -> Path:
    """Painted scenes as files."""
    folder.mkdir()
    for i, case in enumerate(world_cases(CALIBRATION_SEED, count)):
        picture = case.picture()
        Image.frombytes("RGB", (picture.width, picture.height), picture.rgb).save(folder / f"{i:04d}.png")
    return folder


def table(
    model: str, floats: Path, types: list[str], calibration: Path, cases: list[Case], folder: Path, sizes: list[int]
) -> None:
    """The rows of one model."""
    files = variants(floats, types, calibration, folder, sizes)
    rows = measure(Files(files), list(files), cases)  # type: ignore[arg-type]
    before = None
    for row in rows:
        if row["type"] in types and (before is None or not sizes):
            before = row["kl"]
        change = f" ({row['kl'] / before - 1:+.0%})" if before and row["type"] not in types else ""
        cells = [
            model,
            row["type"],
            f"{row['file_bytes'] / 1e6:.2f}",
            f"{row['kl']:.6f}{change}",
            *(
                "" if row[key] is None else f"{row[key]:.4f}"
                for key in ("top1_agreement", "location_top1_agreement", "reference_box_iou", "box_iou")
            ),
            f"{row['caption_agreement']:.3f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="held-out scenes")
    parser.add_argument("--calibrate", type=int, default=60, help="scenes to calibrate with")
    parser.add_argument("--types", default="q4_k_m,q6_k")
    parser.add_argument("--sizes", default="", help="files of so many %% of the bytes of the first type")
    parser.add_argument("--outliers", default="1,8", help="of the stand-ins, see off_grid.py")
    parser.add_argument("--model", type=Path, help="a GGUF file of floats instead")
    parser.add_argument("--calibration", type=Path, help="folder to calibrate --model with")
    parser.add_argument("--pictures", type=Path, help="folder to measure --model on")
    options = parser.parse_args()
    types = options.types.split(",")
    sizes = [int(word) for word in options.sizes.split(",") if word]
    heads = ["model", "type", "MB", "KL", "top-1", "location top-1", "IoU with f32's boxes", "IoU with true boxes"]
    print("| " + " | ".join([*heads, "same caption"]) + " |\n" + "|---" * (len(heads) + 1) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.model:
            cases = folder_cases(options.pictures, None)
            table(options.model.stem, options.model, types, options.calibration, cases, folder, sizes)
            return
        pictures = scenes(folder / "scenes", options.calibrate)
        for outliers in map(float, options.outliers.split(",")):
            work = folder / f"outliers-{outliers:g}"
            work.mkdir()
            write_off_grid(str(NANO), str(work / "floats.gguf"), 0, outliers)
            label = "nano, off the grid" + (f", outliers x {outliers:g}" if outliers > 1 else "")
            table(label, work / "floats.gguf", types, pictures, world_cases(0, options.n), work, sizes)


if __name__ == "__main__":
    main()
