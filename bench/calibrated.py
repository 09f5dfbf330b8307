"""What calibrated quantization gains: a float file in each type, rounded as ever and by its inputs, on new pictures.

    python bench/calibrated.py [--n 200] [--calibrate 60] [--types q4_k_m,q6_k] [--outliers 1,8]
    python bench/calibrated.py --model FLOATS.gguf --calibration FOLDER --pictures FOLDER [--types q4_k_m]
    python bench/calibrated.py --types q4_k_m --sizes 100,90,78        # of the bytes of the first type

Without --model the float file is nano's, with weights off the grids (off_grid.py), with and without outlier
channels; the model is calibrated on scenes of one seed and measured on those of another. "--texts" are rows of one who
knows what he will ask: questions in the forms that nano was trained with, about the scenes to calibrate with. Prints
the rows of docs/quantization.md.
"""

import argparse
import dataclasses
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
from kosmos_edge.calibration import QUESTIONS, CalibrationSet, calibration_set, read_texts, record
from kosmos_edge.convert import requantize
from kosmos_edge.convert.calibrated import FEEDBACK_BYTES, Calibration
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


def calibrated(floats: Path, things: CalibrationSet) -> Calibration:
    """What `convert --calibrate` is told, recorded once for all types where all second moments fit into memory."""
    shapes = {name: tuple(shape) for name, _, shape, *_ in _core.GgufFile(str(floats)).tensors()}
    matrices = {name for name, shape in shapes.items() if len(shape) == 2}
    fits = sum(4 * shapes[name][-1] ** 2 for name in matrices) <= FEEDBACK_BYTES
    found = record(floats, things, matrices if fits else set())
    statistics = recorded(found, shapes, [things.name], things.chunks)
    return Calibration(statistics, collect=lambda names: found if fits else record(floats, things, names))


def sized(
    floats: Path, things: CalibrationSet, calibration: Calibration, sizes: dict[str, int], folder: Path
) -> dict[str, Path]:
    """Files of these sizes, with feedback: as `convert --size --calibrate` makes them, but probed once for all."""
    plain = dataclasses.replace(calibration, collect=None)
    questions = (*things.texts, *QUESTIONS)

    @cache
    def groups(types: Sequence[tuple[str, str]]) -> list[tuple[list[str], float]]:
        return measure_groups(floats, dict(types), things.pictures, questions, folder, calibration=plain)

    files = {}
    for label, size in sizes.items():
        sizing = Sizing(size, calibration.statistics)
        sizing.probe = lambda types: groups(tuple(types.items()))
        files[label] = folder / f"{size}.gguf"
        print(*requantize(floats, files[label], size=sizing, calibration=calibration).plan, sep="\n", file=sys.stderr)
    return files


def variants(
    floats: Path, types: list[str], things: CalibrationSet, texts: Path | None, folder: Path, sizes: list[int]
) -> dict[str, Path]:
    """Each type as ever, with the statistics alone, with feedback, with feedback and texts; and sizes in % of the first
    type's."""
    sets = {", --calibrate": things}
    if texts is not None:
        sets[", --calibrate --texts"] = dataclasses.replace(things, texts=read_texts(texts))
    known = {end: calibrated(floats, asked) for end, asked in sets.items()}
    alone = dataclasses.replace(known[", --calibrate"], collect=None)
    ways: dict[str, Calibration | None] = {"": None, ", --imatrix": alone, **known}
    files = {"f32": floats}
    for name in types:
        for end, way in ways.items():
            files[name + end] = folder / f"{len(files)}.gguf"
            requantize(floats, files[name + end], type=name, calibration=way)
    whole = files[types[0]].stat().st_size
    for end, asked in sets.items() if sizes else ():
        wanted = {f"--size, {percent} %{end}": whole * percent // 100 for percent in sizes}
        (place := folder / f"sizes{len(files)}").mkdir()
        files |= sized(floats, asked, known[end], wanted, place)
    return files


def scenes(folder: Path, count: int) -> Path:
    """Painted scenes as files."""
    folder.mkdir()
    for i, case in enumerate(world_cases(CALIBRATION_SEED, count)):
        picture = case.picture()
        Image.frombytes("RGB", (picture.width, picture.height), picture.rgb).save(folder / f"{i:04d}.png")
    return folder


def trained_questions(file: Path, count: int) -> Path:
    """Questions in the forms of nano's training about the scenes to calibrate with, one a line."""
    lines = {question.text: None for case in world_cases(CALIBRATION_SEED, count) for question in case.questions}
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def table(
    model: str,
    floats: Path,
    types: list[str],
    calibration: Path,
    texts: Path | None,
    cases: list[Case],
    folder: Path,
    sizes: list[int],
) -> None:
    """The rows of one model."""
    files = variants(floats, types, calibration_set(calibration), texts, folder, sizes)
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
    parser.add_argument("--texts", type=Path, help="questions to calibrate with, one a line [nano's: training's]")
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
            table(options.model.stem, options.model, types, options.calibration, options.texts, cases, folder, sizes)
            return
        pictures = scenes(folder / "scenes", options.calibrate)
        texts = options.texts or trained_questions(folder / "questions.txt", options.calibrate)
        for outliers in map(float, options.outliers.split(",")):
            work = folder / f"outliers-{outliers:g}"
            work.mkdir()
            write_off_grid(str(NANO), str(work / "floats.gguf"), 0, outliers)
            label = "nano, off the grid" + (f", outliers x {outliers:g}" if outliers > 1 else "")
            table(label, work / "floats.gguf", types, pictures, texts, world_cases(0, options.n), work, sizes)


if __name__ == "__main__":
    main()
