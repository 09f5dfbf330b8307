"""Pictures with captions: folders, COCO's captions, webdataset tars, tables of img2dataset.

A caption's white space becomes single blanks; the places in records refer to that text.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosError, KosmosIOError
from kosmos_edge.folders import tables, tars
from kosmos_edge.folders.running import Entry, file_entry
from kosmos_edge.images import picture_suffixes

# Columns of pictures in tables that img2dataset and others write, the first one counts.
PICTURE_COLUMNS = ("jpg", "png", "webp", "image")
_KINDS: dict[str, tuple[type, ...]] = {
    "id": (int,),
    "url": (str,),
    "clip_similarity_vitb32": (int, float),
    "clip_similarity_vitl14": (int, float),
}
FACTS = tuple(_KINDS)  # what a record has besides, where it is known


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture and a caption of it."""

    key: str
    entry: Entry
    caption: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)  # of FACTS: those that are known
    error: KosmosError | None = None  # why there is no such pair
    dropped: str = ""  # why there is none, where that is nobody's fault


def plain_caption(value: object) -> str:
    """The caption in one line, single blanks. InvalidRequest for what is no text."""
    if not isinstance(value, str):
        raise InvalidRequest(f"the caption: expected text, got {type(value).__name__}")
    text = " ".join(value.split())
    if not _is_text(text):
        raise InvalidRequest("the caption has characters that are no text (NUL, or half of a surrogate pair)")
    return text


def _is_text(value: str) -> bool:
    """Whether UTF-8 can hold it, and there is no NUL."""
    return not any(c == "\0" or 0xD800 <= ord(c) < 0xE000 for c in value)


def read_pairs(
    inputs: Sequence[str], captions: str | None = None, *, column: str | None = None, caption_column: str = "caption"
) -> Iterator[Pair]:
    """The pairs of all inputs, in an order that depends on names and contents alone.

    inputs: folders, .tar files (also compressed), .parquet files. captions: a COCO captions file for the one folder in
    inputs; otherwise pictures of folders have a .txt of the same name beside them. column, caption_column: of tables.
    InvalidRequest, at once, for inputs that are none of these.
    """
    if captions is not None:
        if len(inputs) != 1 or not os.path.isdir(inputs[0]):
            raise InvalidRequest("--captions: expected one folder of pictures with it")
        return _coco(inputs[0], captions, _read_coco(captions))
    readers: list[Iterator[Pair]] = []
    for name in inputs:
        lower = name.lower()
        if os.path.isdir(name):
            readers.append(_folder(name))
        elif not os.path.lexists(name):
            raise KosmosIOError(2, "No such file or directory", name)
        elif lower.endswith(tars.SUFFIXES):
            readers.append(_tar(name))
        elif lower.endswith(tables.SUFFIXES):
            readers.append(_table(name, column, caption_column))
        else:
            raise InvalidRequest(f"{name}: expected a folder, a .tar file or a .parquet file")
    return (pair for reader in readers for pair in reader)


# ---- folders


def _folder(root: str) -> Iterator[Pair]:
    """Pictures with a .txt of the same name; keys are their paths in the folder."""
    if not _has_pairs(root):
        raise InvalidRequest(
            f"{root}: no pictures in this folder (name tar and Parquet files themselves; COCO's captions: --captions)"
        )
    return _folder_pairs(root)


def _has_pairs(root: str) -> bool:
    return any(pictures for _, pictures, _ in _walk(root))


def _walk(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """(folder, names of pictures, names of .txt files), sorted; follows no links to folders, skips hidden names."""

    def fail(error: OSError) -> NoReturn:
        raise KosmosIOError(error.errno or 5, error.strerror or str(error), str(error.filename))

    suffixes = picture_suffixes()
    for folder, folders, names in os.walk(root, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = sorted(name for name in names if not name.startswith("."))
        pictures = [name for name in shown if os.path.splitext(name)[1].lower() in suffixes]
        yield folder, pictures, [name for name in shown if name.lower().endswith(".txt")]


def _folder_pairs(root: str) -> Iterator[Pair]:
    for folder, pictures, texts in _walk(root):
        captions = {os.path.splitext(name)[0]: name for name in texts}
        used = set()
        for name in pictures:
            path = os.path.join(folder, name)
            key = tables.plain(os.path.relpath(path, root).replace(os.sep, "/"))
            stem = os.path.splitext(name)[0]
            if stem not in captions:
                yield Pair(key, file_entry(path, key), dropped="no_caption")
                continue
            used.add(stem)
            yield _made(key, file_entry(path, key), partial(_text, os.path.join(folder, captions[stem])))
        for stem in sorted(captions.keys() - used):
            path = os.path.join(folder, captions[stem])
            key = tables.plain(os.path.relpath(path, root).replace(os.sep, "/"))
            yield Pair(key, file_entry(path, key), error=ImageDecodeError(f"{path}: there is no picture of this name"))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path}: expected UTF-8 ({error})") from None
    except OSError as error:
        raise KosmosIOError(error.errno or 5, error.strerror or str(error), path) from error


def _made(key: str, entry: Entry, caption: Callable[[], object], facts: Mapping[str, Any] | None = None) -> Pair:
    """The pair, or one with the error that making it gives."""
    try:
        return Pair(key, entry, plain_caption(caption()), _facts(facts or {}))
    except KosmosError as error:
        return Pair(key, entry, error=error)


def _facts(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of FACTS that are there; InvalidRequest for one of another type. A NaN, as tables have it, is unknown."""
    facts: dict[str, Any] = {}
    for name in FACTS:
        value: Any = given.get(name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        if name == "id" and isinstance(value, float) and value.is_integer():
            value = int(value)
        fits = isinstance(value, _KINDS[name])
        if not fits or isinstance(value, bool) or (name == "id" and not _is_int64(value)):
            shown = " or ".join(kind.__name__ for kind in _KINDS[name])
            raise InvalidRequest(f"{name}: expected {shown}, got {value!r}")
        if isinstance(value, float) and math.isinf(value):
            raise InvalidRequest(f"{name}: expected a finite number, got {value!r}")
        if isinstance(value, str) and not _is_text(value):
            raise InvalidRequest(f"{name}: expected text without NUL and halves of surrogate pairs, got {value!r}")
        facts[name] = float(value) if name.startswith("clip") else value
    return facts


def _is_int64(value: int) -> bool:
    return -(2**63) <= value < 2**63


# ---- COCO's captions


def _read_coco(path: str) -> tuple[dict[Any, Mapping[str, Any]], list[Any]]:
    """(pictures by id, annotations)."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            record = json.load(file)
    except OSError as error:
        raise KosmosIOError(error.errno or 5, error.strerror or str(error), path) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path}: no JSON: {error}") from None
    images = record.get("images") if isinstance(record, dict) else None
    annotations = record.get("annotations") if isinstance(record, dict) else None
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise InvalidRequest(f"{path}: expected COCO's captions: an object with lists of images and annotations")
    known: dict[Any, Mapping[str, Any]] = {}
    for number, image in enumerate(images):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str) or not _is_id(image.get("id")):
            raise InvalidRequest(f"{path}: images[{number}]: expected id and file_name")
        if known.setdefault(image["id"], image) is not image:
            raise InvalidRequest(f"{path}: images[{number}]: the id {image['id']!r} is there twice")
    return known, annotations


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _coco(folder: str, path: str, read: tuple[dict[Any, Mapping[str, Any]], list[Any]]) -> Iterator[Pair]:
    """A pair for each annotation, by picture, in the file's order; keys are FILE#ID of the annotation."""
    images, annotations = read
    of: dict[Any, list[tuple[int, Any]]] = {number: [] for number in images}
    for place, annotation in enumerate(annotations):
        number = annotation.get("image_id") if isinstance(annotation, dict) else None
        if _is_id(number) and number in of and _is_id(annotation.get("id")):
            of[number].append((place, annotation))
            continue
        key = f"{os.path.basename(path)}#annotations[{place}]"
        problem = InvalidRequest(f"{path}: annotations[{place}]: expected id, caption, and the image_id of an image")
        yield Pair(key, file_entry(path, key), error=problem)
    for number, image in images.items():
        name = image["file_name"]
        at = os.path.join(folder, name)
        wrong = _wrong_name(name)
        if not of[number]:
            yield Pair(tables.plain(name), file_entry(at, name), dropped="no_caption")
        for _, annotation in of[number]:
            key = tables.plain(f"{name}#{annotation['id']}")
            entry = file_entry(at, key)
            if wrong:
                yield Pair(key, entry, error=InvalidRequest(f"{path}: file_name {name!r} {wrong}"))
                continue
            ids = {"id": annotation["id"]} if isinstance(annotation["id"], int) else {}
            url = {"url": image["coco_url"]} if image.get("coco_url") else {}
            yield _made(key, entry, partial(annotation.get, "caption"), {**ids, **url})


def _wrong_name(name: str) -> str:
    """Why a file_name of a captions file cannot be opened; empty if it may be."""
    if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
        return "leads out of the folder"
    return "" if _is_text(name) else "is no text"


# ---- webdataset


def _tar(path: str) -> Iterator[Pair]:
    """Samples with a .txt, or a caption in their .json; keys are those of the samples."""
    lone: list[tars.Sample] = []

    def without() -> Iterator[Pair]:
        while lone:
            key = tables.plain(lone.pop(0).key)
            yield Pair(key, file_entry(path, key), dropped="no_picture")

    try:
        for entry in tars.tar_entries(path, lone=lone.append):
            yield from without()
            sample: tars.Sample = entry.about
            files = {name: content for name, content in reversed(sample.files)}
            try:
                facts = _json(files["json"]) if "json" in files else {}
            except InvalidRequest as error:
                yield Pair(tables.plain(sample.key), entry, error=InvalidRequest(f"{entry.name}: its json: {error}"))
                continue
            key = facts.get("key") if isinstance(facts.get("key"), str) else sample.key
            if "txt" not in files and facts.get("caption") is None:
                yield Pair(tables.plain(str(key)), entry, dropped="no_caption")
                continue
            yield _made(tables.plain(str(key)), entry, partial(_caption, files, facts), facts)
        yield from without()
    except ImageDecodeError as error:  # after the samples before the damage
        yield Pair(path, file_entry(path), error=error)


def _json(content: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"no JSON: {error}") from None
    if not isinstance(record, dict):
        raise InvalidRequest("expected an object")
    return record


def _caption(files: Mapping[str, bytes], facts: Mapping[str, Any]) -> object:
    if "txt" not in files:
        return facts["caption"]
    try:
        return files["txt"].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the caption: expected UTF-8 ({error})") from None


# ---- tables


def _table(path: str, column: str | None, caption_column: str) -> Iterator[Pair]:
    """Rows with a picture's bytes or path and a caption; keys are those of the rows, or FILE#ROW."""
    names = tables.table_columns(path)
    shown = ", ".join(names)
    pictures = column or next((name for name in PICTURE_COLUMNS if name in names), None)
    if pictures is None or pictures not in names:
        which = repr(column) if column else f"of pictures ({', '.join(PICTURE_COLUMNS)})"
        raise InvalidRequest(f"{path}: no column {which}; it has {shown} (--image-column)")
    if caption_column not in names:
        raise InvalidRequest(f"{path}: no column {caption_column!r}; it has {shown} (--caption-column)")
    others = [name for name in dict.fromkeys((caption_column, "key", "status", *FACTS)) if name in names]
    return _rows(path, pictures, caption_column, others)


def _rows(path: str, pictures: str, caption_column: str, others: Iterable[str]) -> Iterator[Pair]:
    try:
        for entry in tables.table_entries(path, pictures, list(others)):
            row: Mapping[str, Any] = entry.about
            key = (
                tables.plain(str(row["key"]))
                if row.get("key") is not None
                else tables.plain(os.path.basename(entry.name))
            )
            if row.get("status", "success") not in ("success", None):
                yield Pair(key, entry, dropped="not_downloaded")
            elif row[caption_column] is None:
                yield Pair(key, entry, dropped="no_caption")
            else:
                yield _made(key, entry, partial(row.get, caption_column), row)
    except ImageDecodeError as error:
        yield Pair(path, file_entry(path), error=error)
    except UnicodeDecodeError as error:
        yield Pair(path, file_entry(path), error=InvalidRequest(f"{path}: a text that is not UTF-8 ({error})"))
