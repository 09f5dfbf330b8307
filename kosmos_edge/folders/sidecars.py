"""Sidecars: a text, JSON or XMP file beside each picture.

A sidecar appears complete or not at all, and one that is there is never replaced unless that was asked for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kosmos_edge.errors import InvalidRequest, KosmosIOError
from kosmos_edge.folders.journal import Journal, digest_bytes
from kosmos_edge.folders.stored import Answer
from kosmos_edge.folders.wording import Wording
from kosmos_edge.folders.xmp import merge_xmp
from kosmos_edge.json_text import to_json
from kosmos_edge.results import Ranking
from kosmos_edge.targets import find_target, write_whole

KINDS = ("txt", "caption", "json", "xmp")
POLICIES = ("refuse", "skip", "overwrite", "append")


def caption_of(answer: Answer, wording: Wording) -> str:
    """The worded text of an answer; of a ranking the likeliest text."""
    if isinstance(answer, Ranking):
        return wording.apply(answer.best.text)
    return wording.apply(answer.text, cut_off=answer.finish_reason == "length")


def record_of(answer: Answer, wording: Wording, name: str) -> dict[str, Any]:
    """The answer's to_dict() under this path; with "caption", if the wording can change the text."""
    record = {**answer.to_dict(), "path": name}
    return record | {"caption": caption_of(answer, wording)} if wording.changes and answer.error is None else record


@dataclass(slots=True)
class Sidecars:
    """Which sidecars a run writes.

    kind: "txt", "caption", "json", "xmp". policy, for one that exists: "refuse" (an error), "skip" (the picture is left
    out), "overwrite", "append" (txt and caption: the caption is added on the same line, after a comma). XMP is merged
    into what is there; "overwrite" replaces description and alt text, and keeps the rest. names: "stem" (photo.txt, as
    trainers expect; XMP: photo.xmp, as Adobe), "full" (photo.jpg.txt, photo.jpg.xmp as darktable and digiKam), None:
    the kind's custom, which is "full" for XMP.
    """

    kind: str
    policy: str = "refuse"
    names: str | None = None
    keywords: bool = False  # xmp: phrases with boxes as dc:subject
    wording: Wording = field(default_factory=Wording)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidRequest(f"sidecar: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.policy not in POLICIES:
            raise InvalidRequest(f"sidecar policy: expected one of {', '.join(POLICIES)}, got {self.policy!r}")
        if self.names not in (None, "stem", "full"):
            raise InvalidRequest(f"sidecar names: expected stem or full, got {self.names!r}")
        if self.policy == "append" and self.kind not in ("txt", "caption"):
            what = "is merged anyway" if self.kind == "xmp" else "has one record"
            raise InvalidRequest(f"append: goes with the sidecars txt and caption; {self.kind} {what}")

    @property
    def merges(self) -> bool:
        """Whether one that exists is no obstacle."""
        return self.policy in ("overwrite", "append") or (self.kind == "xmp" and self.policy != "skip")

    def path(self, picture: str) -> str:
        """The absolute path of a picture's sidecar."""
        whole = os.path.abspath(picture)
        full = self.names == "full" or (self.names is None and self.kind == "xmp")
        return f"{whole if full else os.path.splitext(whole)[0]}.{self.kind}"

    def check(self, pictures: Iterable[str], known: Journal | None = None) -> None:
        """Before a run. InvalidRequest if two pictures would share one, or if there are some and no policy for them.

        known: a sidecar that this journal knows is no obstacle.
        """
        owners: dict[str, str] = {}
        existing, first = 0, ""
        for picture in pictures:
            path = self.path(picture)
            other = owners.setdefault(os.path.normcase(path), os.path.abspath(picture))
            if other != os.path.abspath(picture):
                raise InvalidRequest(
                    f"{other} and {picture} would share the sidecar {path}: use full names (--sidecar-names full)"
                )
            if other == path:
                raise InvalidRequest(f"{picture}: its sidecar would have the picture's own name")
            obstacle = self.policy != "skip" and not self.merges and os.path.lexists(path)
            if obstacle and (known is None or known.written(path) is None):
                existing, first = existing + 1, first or path
        if existing:
            noun = "sidecar exists" if existing == 1 else "sidecars exist"
            raise InvalidRequest(
                f"{existing} {noun} already ({first}): --skip leaves those pictures out, --overwrite replaces, "
                "--append adds; --resume continues a run that ended early"
            )

    # ---- one picture

    def content(self, answer: Answer, name: str, before: bytes | None, path: str) -> bytes:
        """The bytes of the sidecar, where `before` is there."""
        caption = caption_of(answer, self.wording)
        if self.kind == "json":
            return (to_json(record_of(answer, self.wording, name), 2) + "\n").encode("utf-8", "surrogateescape")
        if self.kind == "xmp":
            replace = self.policy == "overwrite"
            return merge_xmp(before, answer, caption, name=path, replace=replace, keywords=self.keywords)
        line = caption.encode("utf-8", "surrogateescape")
        if self.policy == "append" and before is not None and before.strip():
            return before.rstrip() + b", " + line + b"\n"
        return line + b"\n"

    def plan(self, picture: str, name: str, answer: Answer) -> Planned:
        """What is going to be written. Raises KosmosError, also if one exists that must not be replaced."""
        path = self.path(picture)
        before = read_whole(path)
        if before is not None and not self.merges:
            raise InvalidRequest(f"{path} exists: it was created meanwhile")
        return Planned(path, before, self.content(answer, name, before, path))


@dataclass(frozen=True, slots=True)
class Planned:
    """A sidecar that is going to be written."""

    path: str
    before: bytes | None
    after: bytes

    @property
    def row(self) -> tuple[str, bytes | None, bytes]:
        """For Journal.keep."""
        return self.path, None if self.before is None else digest_bytes(self.before), digest_bytes(self.after)

    def write(self) -> None:
        """Writes it in one step. Raises KosmosError."""
        if self.before != self.after:
            overwrite = self.before is not None
            write_whole(find_target(self.path, overwrite=overwrite), self.after, overwrite=overwrite)


def read_whole(path: str) -> bytes | None:
    """The file's bytes; None if there is none. Raises KosmosIOError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KosmosIOError(error.errno or errno.EIO, error.strerror or str(error), path) from error


def needs_text(kind: str, task: str) -> None:
    """InvalidRequest for a sidecar of text from a task whose answers are boxes alone."""
    if task == "locate" and kind in ("txt", "caption"):
        raise InvalidRequest(f"locate: its answers are boxes, and the sidecar {kind} is text: use json or xmp")
