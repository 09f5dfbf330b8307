"""Calibrated conversion: the model answers about your pictures, and its matrices are rounded by what they met there.

A conversion is three passes: the checkpoint becomes a float file, which answers about the calibration set while the
engine records the inputs of every matrix, and is then rounded (kosmos_edge.convert.calibrated). The processor gives the
same bits on every machine, and so does the whole.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest, KosmosIOError
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.model import Model
from kosmos_edge.quality.cases import SUFFIXES
from kosmos_edge.quality.sensitivity import measure_groups

MIN_PICTURES = 8  # fewer say little of what a channel holds
MAX_TEXT_BYTES = 1 << 20
PAGE_TOKENS = 256  # of a page that is read
ANSWER_TOKENS = 32
LONG_TOKENS = 128  # of a long caption
PHRASES = 2  # of each caption, that are located, whose boxes are described, and that are asked about
QUESTIONS_EACH = 2  # of QUESTIONS about each picture
PHRASE_QUESTIONS_EACH = 3  # of PHRASE_QUESTIONS about each phrase
# Words that stand in no question of the calibration are inputs that rounding does not serve, so that the forms of
# questions that data sets and people ask are all here (existence, count, colour, kind, place, relation, text).
QUESTIONS = (
    "What is in the picture?",
    "How many objects are there?",
    "What color is it?",
    "Is there a person?",
    "What is in the image?",
    "How many people are in the picture?",
    "What is on the left side of the image?",
    "What is on the right side of the image?",
    "What is in the background?",
    "What shape is it?",
    "What does it say?",
    "Is it day or night?",
)
# About phrases of captions. "a red car": phrase; name "red car", noun "car", first "red"; other: an earlier phrase.
PHRASE_QUESTIONS = (
    "How many {noun}s are there?",
    "Is there {phrase}?",
    "What color is the {noun}?",
    "How many {first} objects are there?",
    "Is there {other} in the picture?",
    "What is to the left of the {name}?",
    "Where is the {name}?",
    "What is the {first} object?",
    "What is above the {name}?",
    "Is there {other}?",
    "How many {name}s can you see in the image?",
    "What is to the right of the {name}?",
    "What kind of {noun} is it?",
    "What is below the {name}?",
    "What is next to the {name}?",
)
FLOAT_TYPES = ("f32", "f16", "bf16")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class CalibrationSet:
    """What the model is run on. texts: asked about the pictures in turn, beside our own questions, or scored where a
    model takes no questions."""

    pictures: tuple[Path, ...]
    texts: tuple[str, ...]
    name: str

    @property
    def chunks(self) -> int:
        """Pictures and texts."""
        return len(self.pictures) + len(self.texts)


def calibration_set(folder: str | os.PathLike[str], texts: str | os.PathLike[str] | None = None) -> CalibrationSet:
    """The pictures of a folder by name (folders inside are left out), and the lines of a UTF-8 file.

    InvalidRequest for fewer than MIN_PICTURES pictures, for a file of texts that is empty, no UTF-8 or larger than
    MAX_TEXT_BYTES; KosmosIOError.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InvalidRequest(f"--calibrate: {root} is not a folder of pictures")
    try:
        found = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as error:
        raise KosmosIOError(f"--calibrate: cannot read {root}: {error.strerror}") from error
    if len(found) < MIN_PICTURES:
        raise InvalidRequest(
            f"--calibrate: {root} contains {len(found)} pictures ({', '.join(sorted(SUFFIXES))}); at least "
            f"{MIN_PICTURES} are needed, 50 or more are better"
        )
    return CalibrationSet(tuple(found), () if texts is None else read_texts(Path(texts)), root.resolve().name)


def read_texts(path: Path) -> tuple[str, ...]:
    """The lines that are not blank."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise KosmosIOError(f"--texts: cannot read {path}: {error.strerror}") from error
    if len(raw) > MAX_TEXT_BYTES:
        raise InvalidRequest(f"--texts: {path} is larger than {MAX_TEXT_BYTES} bytes")
    try:
        lines = tuple(line.strip() for line in raw.decode("utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"--texts: {path} is not UTF-8: byte {error.start}") from None
    if not lines:
        raise InvalidRequest(f"--texts: {path} has no line of text")
    return lines


def record(
    path: str | os.PathLike[str],
    things: CalibrationSet,
    products_of: set[str],
    *,
    threads: int = 0,
    progress: Progress | None = None,
    cancel: Any = None,
) -> _core.ActivationRecorder:
    """Runs the model of a float file over the set: greedy captions with boxes, some of them long or without, phrases of
    them located, boxes described, questions answered, pages read, texts scored, as far as it was made for them; -> what
    was recorded."""
    recorder = _core.ActivationRecorder(products_of)
    with Model(
        _core.Engine(
            os.fspath(path),
            device="cpu",
            threads=threads,
            recorder=recorder,
            cancel=cancel,
            drafts="off",  # rows of drafts that do not come are no inputs
        ),
        path,
    ) as model:
        abilities = set(model.model_info["tasks"])
        asks = "ask" in abilities
        total = len(things.pictures) + (0 if asks else len(things.texts))
        talk = _Talk(model, abilities, cancel)
        for i, picture in enumerate(things.pictures):
            if progress is not None:
                progress(i, total, picture.name)
            talk.about(model.encode(os.fspath(picture), cancel=cancel), i, asked_of(things, i) if asks else ())
        if not asks:
            _score(model, abilities, things.texts, cancel)
        if progress is not None:
            progress(total, total, "")
    return recorder


def asked_of(things: CalibrationSet, number: int) -> list[str]:
    """The fixed questions and the texts that are asked about a picture. With few pictures every text is asked all the
    same."""
    own = [QUESTIONS[(number * QUESTIONS_EACH + k) % len(QUESTIONS)] for k in range(QUESTIONS_EACH)]
    texts = things.texts
    return own + list(texts[number :: len(things.pictures)] or texts[number % len(texts) :][:1] if texts else ())


def phrase_questions(phrase: str, other: str, turn: int) -> list[str]:
    """PHRASE_QUESTIONS_EACH questions about a phrase of a caption; those of the next turn are others."""
    words = phrase.split()
    name = words[1:] if len(words) > 1 and words[0].lower() in ("a", "an", "the") else words
    given = {"phrase": " ".join(words), "name": " ".join(name), "noun": name[-1], "first": name[0], "other": other}
    forms = [
        PHRASE_QUESTIONS[(turn * PHRASE_QUESTIONS_EACH + k) % len(PHRASE_QUESTIONS)]
        for k in range(PHRASE_QUESTIONS_EACH)
    ]
    return [form.format(**given) for form in forms]


class _Talk:
    """What is said to a model about one picture after the other."""

    def __init__(self, model: Model, abilities: set[str], cancel: Any) -> None:
        self._model, self._abilities, self._cancel = model, abilities, cancel
        self._turn = 0  # of questions about phrases
        self._other = "a dog"  # the phrase before

    def about(self, image: EncodedImage, number: int, asked: Sequence[str]) -> None:
        """All that the model was made for. number: of the picture; asked: questions."""
        if "caption" in self._abilities:
            self._caption(image, number)
        elif "read" in self._abilities:
            markdown = bool(number % 2) and bool(self._model.model_info["prompts"]["markdown"])
            self._model.read(image, markdown=markdown, max_tokens=PAGE_TOKENS, cancel=self._cancel)
        for text in asked:
            self._ask(image, text)

    def _caption(self, image: EncodedImage, number: int) -> None:
        model, grounds = self._model, "ground" in self._abilities
        result = model.caption(image, ground=grounds, cancel=self._cancel)
        if number % 4 == 1:
            model.caption(image, "long", ground=grounds, max_tokens=LONG_TOKENS, cancel=self._cancel)
        elif number % 4 == 3 and grounds:
            model.caption(image, cancel=self._cancel)
        for entity in result.entities[:PHRASES]:
            boxes = [box for box in entity.boxes if box.valid]
            phrase = entity.phrase.strip()
            if "locate" in self._abilities and phrase:
                model.locate(image, phrase, cancel=self._cancel)
            if "describe" in self._abilities and boxes:
                model.describe(image, boxes[0], max_tokens=ANSWER_TOKENS, cancel=self._cancel)
            if "ask" in self._abilities and phrase:
                for text in phrase_questions(phrase, self._other, self._turn):
                    self._ask(image, text)
                self._turn, self._other = self._turn + 1, phrase

    def _ask(self, image: EncodedImage, text: str) -> None:
        self._model.ask(image, text, max_tokens=ANSWER_TOKENS, cancel=self._cancel)


def _score(model: Model, abilities: set[str], texts: Sequence[str], cancel: Any) -> None:
    for text in texts:
        if "score" in abilities:
            model.score(None, [text], cancel=cancel)
        else:
            model.embed_text([text], truncate=True, cancel=cancel)


def calibrated_convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    type: str | None = None,
    size: int | str | None = None,
    things: CalibrationSet | None = None,
    imatrix: str | os.PathLike[str] | None = None,
    save_imatrix: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    tokenizer: str | os.PathLike[str] | None = None,
    base: str | os.PathLike[str] | None = None,
    threads: int = 0,
    progress: Progress | None = None,
    cancel: Any = None,
) -> Any:
    """As kosmos_edge.convert.convert, and as requantize where the source is a GGUF file of floats; -> its report.

    things: what the model is run on. imatrix: statistics of an earlier run instead, or llama.cpp's: they hold no second
    moments, so that there is no error feedback. size: instead of type, bytes that the file may have, or a text such as
    900MB: each tensor gets a type of its own (convert/sizing.py), with things by what its errors do to the answers.
    save_imatrix: file to write the statistics to.
    Raises what convert and load raise; InvalidRequest for a type of floats, and for statistics of another model.
    """
    conversion = import_module("kosmos_edge.convert")
    calibrated = import_module("kosmos_edge.convert.calibrated")
    statistics = import_module("kosmos_edge.convert.statistics")
    if (things is None) == (imatrix is None):
        raise InvalidRequest("expected pictures to calibrate with, or statistics (imatrix), and not both")
    if save_imatrix is not None and things is None:
        raise InvalidRequest("--save-imatrix: nothing is calibrated: --calibrate is missing")
    if (type is None) == (size is None):
        raise InvalidRequest("expected a type or a size, and not both")
    sizing = None if size is None else import_module("kosmos_edge.convert.sizing").Sizing(size)
    if type is not None and type.lower() in FLOAT_TYPES:
        raise InvalidRequest(f"the type {type} is not rounded: there is nothing to calibrate")
    known = None if imatrix is None else statistics.read_statistics(imatrix)  # errors first: it costs nothing
    if save_imatrix is not None and os.path.exists(save_imatrix) and not overwrite:
        raise InvalidRequest(f"{os.fspath(save_imatrix)} exists: use overwrite (--overwrite) to replace it")
    target = Path(output)
    with tempfile.TemporaryDirectory(prefix=".kosmos-edge-calibrate-", dir=_folder_of(target)) as name:
        floats, target = _float_file(
            Path(source), target, Path(name), _label(type, sizing), tokenizer, base, progress, cancel
        )
        tensors = _core.GgufFile(os.fspath(floats)).tensors()
        shapes = {tensor: tuple(shape) for tensor, _, shape, *_ in tensors}
        if known is not None:
            calibration = calibrated.Calibration(known, os.fspath(imatrix or ""))
        else:
            assert things is not None
            calibrated.check_floats(floats, tensors)

            def collect(products_of: set[str]) -> _core.ActivationRecorder:
                return record(floats, things, products_of, threads=threads, progress=progress, cancel=cancel)

            found = statistics.recorded(collect(set()), shapes, [things.name], things.chunks)
            if save_imatrix is not None:
                statistics.write_statistics(found, save_imatrix, overwrite)
            folding = import_module("kosmos_edge.convert.folding")
            factors = folding.factors_of(floats, found)
            if factors:
                folded = Path(name) / "folded.gguf"
                conversion.requantize(floats, folded, type="f32", factors=factors, progress=progress, cancel=cancel)
                if floats != Path(source):
                    floats.unlink()
                floats, found = folded, folding.folded(found, factors)
            calibration = calibrated.Calibration(found, collect=collect, folds=bool(factors))
        if sizing is not None:
            sizing.statistics = calibration.statistics
            if things is not None and _answers(floats):
                plain = calibrated.Calibration(calibration.statistics)
                questions = (*things.texts, *QUESTIONS)
                sizing.probe = lambda types: measure_groups(
                    *(floats, types, things.pictures, questions, Path(name)),
                    calibration=plain,
                    threads=threads,
                    progress=progress,
                    cancel=cancel,
                )
        return conversion.requantize(
            *(floats, target),
            type=type,
            size=sizing,
            overwrite=overwrite,
            progress=progress,
            cancel=cancel,
            calibration=calibration,
        )


def _label(type: str | None, sizing: Any) -> str:
    """As file names spell it."""
    if type is None:
        return str(sizing.label)
    conversion = import_module("kosmos_edge.convert")
    return str(conversion.find_recipe(type).label)


def _answers(path: Path) -> bool:
    """Whether the model's answers about a picture can be compared token by token."""
    return bool({"caption", "read"} & set(_core.model_info(os.fspath(path))["tasks"]))


def _folder_of(target: Path) -> Path:
    folder = target if target.is_dir() else target.absolute().parent
    if not folder.is_dir():
        raise KosmosIOError(f"there is no folder {folder}")
    return folder


def _float_file(
    source: Path,
    target: Path,
    folder: Path,
    label: str,
    tokenizer: str | os.PathLike[str] | None,
    base: str | os.PathLike[str] | None,
    progress: Progress | None,
    cancel: Any,
) -> tuple[Path, Path]:
    """A GGUF file of floats of the source, made in `folder` unless it is one; the file to write."""
    conversion = import_module("kosmos_edge.convert")
    if _is_gguf(source):
        if tokenizer is not None or base is not None:
            raise InvalidRequest(f"{source} is a GGUF file: --tokenizer and --base are for checkpoints")
        if target.is_dir():
            raise InvalidRequest(f"{target} is a folder: name the file to write, where the source is a GGUF file")
        return source, target
    made = Path(
        conversion.convert(
            source, str(folder) + os.sep, type="f32", tokenizer=tokenizer, base=base, progress=progress, cancel=cancel
        ).output
    )
    if target.is_dir():
        target /= f"{made.name.removesuffix('F32.gguf')}{label}.gguf"
    return made, target


def _is_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise KosmosIOError(f"cannot read {path}: {error.strerror}") from error
