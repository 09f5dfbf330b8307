"""Data sets of a whole run: COCO, YOLO, Pascal VOC, Label Studio, FiftyOne, ImageFolder.

COCO and Label Studio are one JSON document. The others are a folder with the pictures in it: copies, or links. What is
known only at the end (names of the labels, boxes of a list) waits in temporary files, so memory does not grow with the
number of pictures.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from kosmos_edge.annotations import (
    Labels,
    Picture,
    coco_parts,
    fiftyone,
    imagefolder,
    label_studio,
    label_studio_config,
    voc,
    yolo,
    yolo_data,
)
from kosmos_edge.annotations.coco import coco_categories
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.json_text import to_json
from kosmos_edge.targets import find_target, make_folder, write_whole, writing

DOCUMENTS = ("coco", "label-studio")
FOLDERS = ("yolo", "voc", "fiftyone", "imagefolder")
EXPORTS = (*DOCUMENTS, *FOLDERS)
PICTURES = ("copy", "symlink", "none")
MARK = ".kosmos-edge.export"  # in a folder whose export is not finished
_BLOCK = 1 << 20


class Spool:
    """Items of a JSON list or object, in a temporary file until they are asked for."""

    def __init__(self, separator: str = ",\n") -> None:
        self._separator = separator
        self._file: IO[str] | None = None

    def add(self, text: str) -> None:
        """One item."""
        if self._file is None:
            self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
            self._file.write(text)
        else:
            self._file.write(self._separator + text)

    def parts(self) -> Iterator[str]:
        """The items, joined by the separator."""
        if self._file is not None:
            self._file.seek(0)
            while block := self._file.read(_BLOCK):
                yield block

    def close(self) -> None:
        """Removes the file."""
        if self._file is not None:
            self._file.close()


class DocumentExport:
    """One JSON document, given to `put` piece by piece."""

    def __init__(self, form: str, labels: Labels, put: Callable[[str], None], *, prefix: str = "") -> None:
        """prefix: label-studio: before each picture's name, for its address."""
        self.form, self._labels, self._put, self._prefix = form, labels, put, prefix
        self._annotations = Spool()
        self._images = self._boxes = 0

    def add(self, picture: Picture) -> None:
        """The next picture."""
        comma = ",\n" if self._images else ""
        self._images += 1
        if self.form == "label-studio":
            self._put((comma or "[\n") + to_json(label_studio(picture, self._labels, prefix=self._prefix)))
            return
        image, rows = next(coco_parts([picture], self._labels))
        self._put((comma or '{"images": [\n') + to_json(image | {"id": self._images}))
        for row in rows:
            self._boxes += 1
            self._annotations.add(to_json(row | {"id": self._boxes, "image_id": self._images}))

    def finish(self) -> None:
        """Writes the rest."""
        if self.form == "label-studio":
            self._put("\n]\n" if self._images else "[]\n")
            return
        self._put('\n],\n"annotations": [\n' if self._images else '{"images": [],\n"annotations": [\n')
        for part in self._annotations.parts():
            self._put(part)
        self._put(f'\n],\n"categories": {to_json(coco_categories(self._labels))}\n}}\n')

    def configuration(self) -> str:
        """label-studio: the labelling interface."""
        return label_studio_config(self._labels)

    def close(self) -> None:
        """Removes what waited."""
        self._annotations.close()


@dataclass(slots=True)
class FolderExport:
    """A data set in a folder; a context manager, which leaves a mark in a folder that is not finished.

    pictures: "copy", "symlink" or "none" (they are put there otherwise). overwrite: the folder may have files, and
    those of the export are replaced. resume: it may have those of an export that was not finished.
    """

    form: str
    folder: str
    labels: Labels
    pictures: str = "copy"
    overwrite: bool = False
    resume: bool = False
    _rows: Spool = field(init=False)
    _names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.form not in FOLDERS or self.pictures not in PICTURES:
            raise InvalidRequest(f"export: expected {FOLDERS} with {PICTURES}, got {self.form!r}, {self.pictures!r}")
        self._rows = Spool("\n" if self.form == "imagefolder" else ",\n")

    def __enter__(self) -> Self:
        root = Path(self.folder)
        make_folder(self.folder, f"--format {self.form}: the output is a folder")
        with writing(self.folder):
            there = sorted(os.listdir(root))
        if there and not self.overwrite and not (self.resume and MARK in there):
            raise InvalidRequest(f"{self.folder} is not empty: name a new folder, or use overwrite (--overwrite)")
        self._write(MARK, f"{self.form}: not finished\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()

    def add(self, picture: Picture, source: str | bytes) -> None:
        """The next picture. source: its file, or its bytes. Pictures of one name are numbered: dog.jpg, dog-2.png."""
        name = self._unique(os.path.basename(picture.name))
        stem, inside = os.path.splitext(name)[0], {"yolo": "images", "voc": "JPEGImages", "fiftyone": "data"}
        folder = inside.get(self.form, "")
        self._place(os.path.join(folder, name), source)
        named = replace(picture, name=name)
        if self.form == "yolo":
            self._write(f"labels/{stem}.txt", yolo(named, self.labels))
        elif self.form == "voc":
            self._write(f"Annotations/{stem}.xml", voc(named, self.labels, folder="JPEGImages"))
        elif self.form == "fiftyone":
            self._rows.add(f"{json.dumps(stem)}: {to_json(fiftyone(named, self.labels))}")
        else:
            self._rows.add(to_json(imagefolder(named, self.labels)))

    def finish(self) -> None:
        """Writes what belongs to all pictures."""
        if self.form == "yolo":
            self._write("data.yaml", yolo_data(self.labels))
        elif self.form == "voc":
            self._write("labels.txt", "".join(f"{name}\n" for name in self.labels.names))
        elif self.form == "fiftyone":
            classes = f'{{"classes": {to_json(self.labels.names)},\n"labels": {{\n'
            self._stream("labels.json", [classes], self._rows.parts(), ["\n}}\n"])
        else:
            self._stream("metadata.jsonl", self._rows.parts(), ["\n"])
        with writing(self.folder):
            os.unlink(os.path.join(self.folder, MARK))

    # ---- files

    def _unique(self, name: str) -> str:
        """A file name whose stem no other picture has, on any file system."""
        stem, suffix = os.path.splitext(re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", name))
        tried, number = stem, 1
        while unicodedata.normalize("NFC", tried.casefold()) in self._names:
            number += 1
            tried = f"{stem}-{number}"
        self._names.add(unicodedata.normalize("NFC", tried.casefold()))
        return tried + suffix

    def _write(self, name: str, text: str) -> None:
        path = os.path.join(self.folder, name)
        with writing(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        write_whole(find_target(path, overwrite=True), text.encode("utf-8", "surrogateescape"))

    def _stream(self, name: str, *parts: Iterable[str]) -> None:
        path = os.path.join(self.folder, name)
        with writing(path):
            with open(path + ".part", "w", encoding="utf-8", errors="surrogateescape") as file:
                for part in parts:
                    file.writelines(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + ".part", path)

    def _place(self, name: str, source: str | bytes) -> None:
        """The picture in the data set."""
        if self.pictures == "none":
            return
        path = os.path.join(self.folder, name)
        with writing(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if isinstance(source, bytes):
                write_whole(find_target(path, overwrite=True), source)
            elif self.pictures == "symlink":
                if os.path.lexists(path):
                    os.unlink(path)
                os.symlink(os.path.abspath(source), path)
            else:
                shutil.copyfile(source, path + ".part")
                os.replace(path + ".part", path)


def check_labels(labels: Labels) -> str | None:
    """What was left out because the list of labels is fixed, in one line; None if nothing was."""
    if not labels.unknown:
        return None
    most = ", ".join(f"{phrase} ({count})" for phrase, count in labels.unknown.most_common(5))
    return f"{labels.unknown.total()} boxes belong to none of the labels: {most}"
