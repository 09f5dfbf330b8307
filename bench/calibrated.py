"""What calibrated quantization gains: a float file in each type, rounded as ever and by its inputs, on new pictures.

    python bench/calibrated.py [--n 200] [--calibrate 60] [--types q4_k_m,q6_k] [--outliers 1,8]
    python bench/calibrated.py --model FLOATS.gguf [--calibration FOLDER] [--pictures FOLDER] [--types q4_k_m]
    python bench/calibrated.py --types q4_k_m --sizes 100,90,78        # of the bytes of the first type

Without --model the float file is nano's, with weights off the grids (off_grid.py), with and without outlier
channels; the model is calibrated on scenes of one seed and measured on those of another. "--texts" are rows of one who
knows what he will ask: questions in the forms that nano was trained with, about the scenes to calibrate with. Prints
the rows of docs/quantization.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from off_grid import write as write_off_grid
from PIL import Image

from kosmos_edge import _core
from kosmos_edge.calibration import QUESTIONS, CalibrationSet, calibration_set, read_texts, record
from kosmos_edge.convert import requantize
from kosmos_edge.convert.calibrated import FEEDBACK_BYTES, Calibration
from kosmos_edge.convert.folding import factors_of, folded
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


@dataclass(frozen=True)
class Known:
    """What `convert --calibrate` rounds by: the float file with scales folded into norms, and its calibration."""

    floats: Path
    things: CalibrationSet
    calibration: Calibration

    @property
    def alone(self) -> Calibration:
        """The statistics without feedback."""
        return replace(self.calibration, collect=None)


def calibrated(floats: Path, things: CalibrationSet, folder: Path, folds: bool = True) -> Known:
    """Recorded once for all types where all second moments fit into memory. folder: for the folded file."""
    shapes = {name: tuple(shape) for name, _, shape, *_ in _core.GgufFile(str(floats)).tensors()}
    matrices = {name for name, shape in shapes.items() if len(shape) == 2}
    statistics = recorded(record(floats, things, set()), shapes, [things.name], things.chunks)
    factors = factors_of(floats, statistics) if folds else {}
    if factors:
        folder.mkdir()
        requantize(floats, folder / "folded.gguf", type="f32", factors=factors)
        floats, statistics = folder / "folded.gguf", folded(statistics, factors)
    fits = sum(4 * shapes[name][-1] ** 2 for name in matrices) <= FEEDBACK_BYTES

    @cache
    def everything() -> _core.ActivationRecorder:
        return record(floats, things, matrices)

    def collect(names: set[str]) -> _core.ActivationRecorder:
        return everything() if fits else record(floats, things, names)

    return Known(floats, things, Calibration(statistics, collect=collect, folds=bool(factors)))


def sized(known: Known, sizes: dict[str, int], folder: Path) -> dict[str, Path]:
    """Files of these sizes, with feedback: as `convert --size --calibrate` makes them, but probed once for all."""
    questions = (*known.things.texts, *QUESTIONS)
    folder.mkdir()

    @cache
    def groups(types: Sequence[tuple[str, str]]) -> list[tuple[list[str], float]]:
        pictures = known.things.pictures
        return measure_groups(known.floats, dict(types), pictures, questions, folder, calibration=known.alone)

    files = {}
    for label, size in sizes.items():
        sizing = Sizing(size, known.calibration.statistics)
        sizing.probe = lambda types: groups(tuple(types.items()))
        files[label] = folder / f"{size}.gguf"
        made = requantize(known.floats, files[label], size=sizing, calibration=known.calibration)
        print(*made.plan, sep="\n", file=sys.stderr)
    return files


def variants(
    floats: Path,
    types: list[str],
    things: CalibrationSet,
    texts: Path | None,
    folder: Path,
    sizes: list[int],
    unfolded: bool,
) -> dict[str, Path]:
    """Each type as ever, with the statistics alone, with feedback, with feedback and texts; and sizes in % of the first
    type's."""
    plain = calibrated(floats, things, folder / "plain", folds=False)
    ways = {", --calibrate": calibrated(floats, things, folder / "folded")}
    if texts is not None:
        asked = replace(things, texts=read_texts(texts))
        ways[", --calibrate --texts"] = calibrated(floats, asked, folder / "asked")
    sources = {"": (floats, None), ", --imatrix": (floats, plain.alone)}
    sources |= {end: (known.floats, known.calibration) for end, known in ways.items()}
    if unfolded:
        sources[", --calibrate, not folded"] = (floats, plain.calibration)
    files = {"f32": floats}
    for name in types:
        for end, (source, calibration) in sources.items():
            files[name + end] = folder / f"{len(files)}.gguf"
            requantize(source, files[name + end], type=name, calibration=calibration)
    whole = files[types[0]].stat().st_size
    for end, known in ways.items() if sizes else ():
        wanted = {f"--size, {percent} %{end}": whole * percent // 100 for percent in sizes}
        files |= sized(known, wanted, folder / f"sizes{len(files)}")
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
    unfolded: bool,
) -> None:
    """The rows of one model."""
    files = variants(floats, types, calibration_set(calibration), texts, folder, sizes, unfolded)
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
    parser.add_argument("--unfolded", action="store_true", help="rows without scales folded into norms, too")
    parser.add_argument("--model", type=Path, help="a GGUF file of floats instead")
    parser.add_argument("--calibration", type=Path, help="folder to calibrate --model with [scenes]")
    parser.add_argument("--texts", type=Path, help="questions to calibrate with, one a line [nano's: training's]")
    parser.add_argument("--pictures", type=Path, help="folder to measure --model on [scenes]")
    options = parser.parse_args()
    types = options.types.split(",")
    sizes = [int(word) for word in options.sizes.split(",") if word]
    heads = ["model", "type", "MB", "KL", "top-1", "location top-1", "IoU with f32's boxes", "IoU with true boxes"]
    print("| " + " | ".join([*heads, "same caption"]) + " |\n" + "|---" * (len(heads) + 1) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.model:
            cases = folder_cases(options.pictures, None) if options.pictures else world_cases(0, options.n)
            calibration = options.calibration or scenes(folder / "scenes", options.calibrate)
            table(
                options.model.stem,
                options.model,
                types,
                calibration,
                options.texts,
                cases,
                folder,
                sizes,
                options.unfolded,
            )
            return
        pictures = scenes(folder / "scenes", options.calibrate)
        texts = options.texts or trained_questions(folder / "questions.txt", options.calibrate)
        for outliers in map(float, options.outliers.split(",")):
            work = folder / f"outliers-{outliers:g}"
            work.mkdir()
            write_off_grid(str(NANO), str(work / "floats.gguf"), 0, outliers)
            label = "nano, off the grid" + (f", outliers x {outliers:g}" if outliers > 1 else "")
            table(
                label,
                work / "floats.gguf",
                types,
                pictures,
                texts,
                world_cases(0, options.n),
                work,
                sizes,
                options.unfolded,
            )


if __name__ == "__main__":
    main()
