"""Grounded pairs from captioned pictures: parse, detect, choose, expand, write. Can be resumed; the outcome depends on
the inputs and settings alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from kosmos_edge.apps.grit.boxes import Rules, Scored, choose
from kosmos_edge.apps.grit.detectors import Asked, Detector, Found
from kosmos_edge.apps.grit.expressions import Nouns, abstract_nouns, find_nouns
from kosmos_edge.apps.grit.parsers import Parser
from kosmos_edge.apps.grit.records import make_record
from kosmos_edge.apps.grit.sources import Pair
from kosmos_edge.apps.grit.statistics import Statistics
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosError
from kosmos_edge.files import irregular, system_error
from kosmos_edge.folders.journal import Journal, JournalError, answer_key, request_digest
from kosmos_edge.folders.running import in_shard
from kosmos_edge.images import Opening, Picture

MAX_CAPTION = 1000  # characters
DEFAULT_BATCH = 16


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a pair."""

    pair: Pair
    record: dict[str, Any] | None = None
    picture: Picture | None = None  # of a record, if `pictures` asked for it
    dropped: str = ""  # why there is no record
    error: KosmosError | None = None  # why there is none
    known: bool = False  # the boxes were in the journal


@dataclass(slots=True)
class _Work:
    """A pair on its way."""

    pair: Pair
    made: Made | None = None  # it needs nothing more
    nouns: Nouns | None = None
    key: bytes = b""
    content: bytes = b""
    answer: dict[str, Any] | None = None  # width, height, boxes, as the journal keeps them
    picture: Picture | None = None
    known: bool = False
    error: KosmosError | None = None


@dataclass(slots=True)
class Builder:
    """A run with its settings.

    abstract: lemmas of nouns that are left out. contained: keep expressions that lie in others. max_caption: longer
    captions are dropped, in characters, 1.. . resume: boxes that the journal has from earlier runs count. shard: (i,
    n): only the pairs of this part. batch: pairs whose phrases are asked for together, 1..; it does not change the
    outcome. pictures: whether a record's picture is wanted (a callable of the key).
    """

    parser: Parser
    detector: Detector
    journal: Journal
    rules: Rules = field(default_factory=Rules)
    abstract: Collection[str] = field(default_factory=abstract_nouns)
    contained: bool = False
    max_caption: int = MAX_CAPTION
    resume: bool = False
    shard: tuple[int, int] | None = None
    batch: int = DEFAULT_BATCH
    opening: Opening = field(default_factory=lambda: Opening(pipes=False))
    pictures: Callable[[str], bool] = lambda key: False
    statistics: Statistics = field(default_factory=Statistics)

    def build(self, pairs: Iterable[Pair]) -> Generator[Made, None, None]:
        """What becomes of each pair of the shard, in order."""
        identity = dict(self.detector.identity(self.journal))
        source = iter(pair for pair in pairs if in_shard(pair.key, self.shard))
        while group := list(islice(source, self.batch)):
            works = [self._begin(pair, identity) for pair in group]
            self._detect(works)
            for work in works:
                yield self._count(self._end(work))

    # ---- before the picture is decoded

    def _begin(self, pair: Pair, identity: Mapping[str, Any]) -> _Work:
        work = _Work(pair)
        try:
            work.made = self._unfit(pair)
            if work.made is None:
                nouns = work.nouns = find_nouns(self.parser.parse(pair.caption), self.abstract)
                self.statistics.add_nouns(nouns)
                if not nouns.kept:
                    work.made = Made(pair, dropped="no_nouns")
                else:
                    self._look_up(work, nouns, identity)
        except JournalError:
            raise
        except (KosmosError, OSError) as error:
            work.error = error if isinstance(error, KosmosError) else _of_system(pair, error)
        return work

    def _unfit(self, pair: Pair) -> Made | None:
        """What becomes of a pair that is none."""
        if pair.error is not None:
            return Made(pair, error=pair.error)
        reason = pair.dropped
        if not reason and not pair.caption:
            reason = "caption_empty"
        if not reason and len(pair.caption) > self.max_caption:
            reason = "caption_too_long"
        return Made(pair, dropped=reason) if reason else None

    def _look_up(self, work: _Work, nouns: Nouns, identity: Mapping[str, Any]) -> None:
        path = work.pair.entry.path
        if path is not None and "\0" in path:  # of a table
            raise ImageDecodeError(f"{work.pair.entry.name}: expected a path, got {path!r}")
        if path is not None and (what := irregular(os.stat(path).st_mode)):  # a pipe would be waited for
            raise ImageDecodeError(f"{path}: {what}")
        work.content = work.pair.entry.digest(self.journal)
        opening = {name: getattr(self.opening, name) for name in ("exif", "frame", "max_pixels", "allow_truncated")}
        request = {
            "task": "grit",
            "detector": dict(identity),
            "caption": work.pair.caption,
            "phrases": [[noun.chunk.start, noun.chunk.end] for noun in nouns.kept],
            "opening": opening,
        }
        work.key = answer_key(work.content, request_digest(request))
        text = self.journal.answer(work.key, earlier=self.resume)
        if text is not None:
            work.answer, work.known = json.loads(text), True

    # ---- the boxes

    def _detect(self, works: Sequence[_Work]) -> None:
        """Decodes the pictures whose boxes are not known, and asks for these."""
        opened: dict[bytes, Picture] = {}
        waiting: list[tuple[_Work, Asked]] = []
        for work in works:
            if work.made is not None or work.error is not None:
                continue
            if work.known and not self.pictures(work.pair.key):
                continue
            try:
                picture = opened.get(work.content) or self.opening.open(work.pair.entry.load())
                changed = work.pair.entry.digest(self.journal) != work.content
            except JournalError:
                raise
            except (KosmosError, OSError) as error:
                work.error = error if isinstance(error, KosmosError) else _of_system(work.pair, error)
                continue
            if changed:
                work.error = InvalidRequest(f"{work.pair.key}: the file has changed while it was read")
                continue
            opened[work.content] = work.picture = picture
            if not work.known:
                assert work.nouns is not None
                phrases = tuple(noun.chunk for noun in work.nouns.kept)
                waiting.append((work, Asked(picture, work.content, work.pair.caption, phrases)))
        if not waiting:
            return
        answers = self.detector.detect([asked for _, asked in waiting])
        for (work, asked), answer in zip(waiting, answers, strict=True):
            if isinstance(answer, KosmosError):
                work.error = answer
                continue
            work.answer = _packed(asked.picture, answer, len(asked.phrases))
            self.journal.keep(work.key, json.dumps(work.answer, allow_nan=False, separators=(",", ":")))

    # ---- the record

    def _end(self, work: _Work) -> Made:
        if work.error is not None:
            return Made(work.pair, error=work.error)
        if work.made is not None:
            return work.made
        assert work.answer is not None and work.nouns is not None
        found = [[Scored(tuple(row[:4]), *row[4:]) for row in rows] for rows in work.answer["boxes"]]
        kept = choose(found, self.rules)
        self.statistics.add_boxes(kept, work.answer["without_context"])
        facts = {
            **work.pair.facts,
            "key": work.pair.key,
            "caption": work.pair.caption,
            "width": work.answer["width"],
            "height": work.answer["height"],
        }
        record = make_record(facts, work.nouns.kept, kept.boxes, contained=self.contained)
        if record is None:
            return Made(work.pair, dropped="no_boxes", known=work.known)
        return Made(work.pair, record, work.picture if self.pictures(work.pair.key) else None, known=work.known)

    def _count(self, made: Made) -> Made:
        self.statistics.pairs += 1
        if made.error is not None:
            self.statistics.failed += 1
        elif made.record is None:
            self.statistics.drop(made.dropped)
        else:
            self.statistics.add_record(made.record)
        return made


def _packed(picture: Picture, found: Found, phrases: int) -> dict[str, Any]:
    assert len(found.boxes) == phrases, "a detector answers about every phrase"
    boxes = [[[*one.box, one.score, one.place] for one in some] for some in found.boxes]
    return {
        "width": picture.width,
        "height": picture.height,
        "boxes": boxes,
        "without_context": found.without_context,
    }


def _of_system(pair: Pair, error: OSError) -> KosmosError:
    return system_error(error, pair.entry.path or pair.key)
