"""One task on many pictures, with a journal: what is known is not computed again, and each sidecar is written once.

Whether a picture is left out, known or new is decided before it is decoded. The outcomes come in the pictures' order.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosError
from kosmos_edge.folders.journal import Journal, JournalError, answer_key, digest_bytes, request_digest
from kosmos_edge.folders.sidecars import Planned, Sidecars, needs_text, read_whole
from kosmos_edge.folders.stored import Answer, pack, unpack
from kosmos_edge.images import Unusable
from kosmos_edge.inference.batching import WITHOUT_PIPES, Settled, failed_answer, run_batch

if TYPE_CHECKING:
    from kosmos_edge.images import Opening
    from kosmos_edge.model import Model


# Writing the other sidecars would fail, too.
_FOR_ALL = (errno.ENOSPC, errno.EROFS, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture of the run."""

    name: str  # of the picture in results
    path: str | None  # its file, beside which sidecars are; None: it is in another file
    load: Callable[[], Any]  # -> an image for Model.batch; raises KosmosError
    digest: Callable[[Journal], bytes]  # of its content; raises KosmosError or OSError
    about: Any = None  # the caller's own
    again: Callable[[], Any] | None = None  # instead of load, after later pictures were loaded

    def reload(self) -> Any:
        """The image once more, for an export or a drawing."""
        return (self.again or self.load)()


def file_entry(path: str | os.PathLike[str], name: str | None = None, about: Any = None) -> Entry:
    """The entry of a picture file."""
    given = os.fspath(path)
    return Entry(name or given, given, lambda: given, lambda journal: journal.file_digest(given), about)


def bytes_entry(name: str, data: bytes, about: Any = None) -> Entry:
    """The entry of a picture in another file."""
    return Entry(name, None, lambda: data, lambda journal: digest_bytes(data), about)


@dataclass(slots=True)
class Outcome:
    """What became of a picture."""

    entry: Entry
    answer: Answer | None  # None: it was left out
    why: str = ""  # it was left out
    known: bool = False  # the answer was in the journal
    sidecar: str | None = None  # its path, if it was written now or by an earlier run


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/8" -> (2, 8); InvalidRequest unless 1 <= i <= n."""
    first, _, count = text.partition("/")
    if first.strip().isdigit() and count.strip().isdigit() and 1 <= int(first) <= int(count):
        return int(first), int(count)
    raise InvalidRequest(f"shard: expected i/n with 1 <= i <= n, such as 2/8, got {text!r}")


def in_shard(name: str, shard: tuple[int, int] | None) -> bool:
    """Whether a picture belongs to the shard: by a hash of its name, so that new pictures move no others."""
    if shard is None:
        return True
    value = int.from_bytes(digest_bytes(os.fsencode(name))[:8], "big")
    return value % shard[1] == shard[0] - 1


@dataclass(slots=True)
class _Decision:
    """About one picture, before it is decoded."""

    entry: Entry
    key: bytes = b""
    content: bytes = b""  # the digest of the picture's file; empty: it has none of its own, or could not be read
    outcome: Outcome | None = None  # it needs nothing more
    known: bool = False  # the answer is in the journal
    original: str = ""  # it has the content of this picture, whose answer is being computed


@dataclass(slots=True)
class FolderRun:
    """A run with its settings; outcomes() runs it.

    model_files: whose content stands for the model. resume: answers and sidecars of earlier runs count. shard: (i, n),
    1 <= i <= n. dedupe: pictures with the same content as an earlier one of this run are left out; otherwise they get
    its answer. version: of this package, which is part of a request.
    """

    model: Model
    task: str
    arguments: Mapping[str, Any]
    journal: Journal
    model_files: tuple[str, ...]
    version: str
    resume: bool = False
    sidecars: Sidecars | None = None
    shard: tuple[int, int] | None = None
    dedupe: bool = False
    batch_size: int = 8
    opening: Opening = WITHOUT_PIPES
    _open: dict[bytes, str] = field(default_factory=dict)  # key -> the picture whose answer is being computed

    def outcomes(self, entries: Iterable[Entry]) -> Generator[Outcome, None, None]:
        """One for each entry of the shard, in order. A picture that fails has an answer with an error."""
        if self.sidecars is not None:
            needs_text(self.sidecars.kind, self.task)
        request = self._request()
        return self._outcomes(entries, request)

    def _request(self) -> bytes:
        """The digest of model, task, arguments, keys and values of 8 bits, and how pictures are opened."""
        opening = asdict(self.opening)
        del opening["pipes"]
        models = sorted(self.journal.file_digest(path).hex() for path in self.model_files)
        parts = {"task": self.task, "arguments": dict(self.arguments), "opening": opening, "models": models}
        if self.model.kv_type == "q8_0":  # answers that differ from those of the default
            parts["kv_type"] = "q8_0"
        return request_digest(parts | {"version": self.version})

    def _outcomes(self, entries: Iterable[Entry], request: bytes) -> Generator[Outcome, None, None]:
        asked: deque[_Decision] = deque()

        def sources() -> Iterator[Any]:
            for entry in entries:
                if not in_shard(entry.name, self.shard):
                    continue
                decision = self._decide(entry, request)
                if decision.outcome is not None or decision.known or decision.original:
                    yield Settled(decision)
                    continue
                self._open[decision.key] = entry.name
                asked.append(decision)
                yield self._load(entry)

        answers = run_batch(
            self.model, sources(), self.task, "yield", self.batch_size, self.arguments, opening=self.opening
        )
        with closing(answers):
            for answer in answers:
                if isinstance(answer, Settled):
                    yield self._settle(answer.value)
                    continue
                decision = asked.popleft()
                self._open.pop(decision.key, None)
                yield self._finish(decision, answer)

    @staticmethod
    def _load(entry: Entry) -> Any:
        try:
            return entry.load()
        except KosmosError as error:
            return Unusable(error)

    # ---- before a picture is decoded

    def _decide(self, entry: Entry, request: bytes) -> _Decision:
        path = self._sidecar_path(entry)
        if path is not None and self.sidecars is not None and self.sidecars.policy == "skip":
            ours = self.journal.written(path) if self.resume else None
            if ours is None and os.path.lexists(path):
                return _Decision(entry, outcome=Outcome(entry, None, f"{path} exists"))
        try:
            content = entry.digest(self.journal)
        except JournalError:
            raise
        except KosmosError as error:
            return self._failed(entry, error)
        except OSError:  # opening it as a picture says why, and computes nothing
            return _Decision(entry, key=os.urandom(32))
        key = answer_key(content, request)
        if self.dedupe:
            other = self.journal.seen(content, entry.name)
            if other is not None:
                return _Decision(entry, outcome=Outcome(entry, None, f"the same picture as {other}"))
        if key in self._open:
            return _Decision(entry, key, original=self._open[key])
        own = b"" if entry.path is None else content
        return _Decision(entry, key, own, known=self.journal.answer(key, earlier=self.resume) is not None)

    def _failed(self, entry: Entry, error: KosmosError) -> _Decision:
        answer = failed_answer(self.model, self.task, entry.name, error)
        return _Decision(entry, outcome=Outcome(entry, answer))

    def _sidecar_path(self, entry: Entry) -> str | None:
        return None if self.sidecars is None or entry.path is None else self.sidecars.path(entry.path)

    # ---- when its turn has come

    def _settle(self, decision: _Decision) -> Outcome:
        if decision.outcome is not None:
            return decision.outcome
        text = self.journal.answer(decision.key, earlier=self.resume)
        if text is None:  # the picture with the same content has failed
            entry = decision.entry
            error = ImageDecodeError(f"{entry.name}: has the content of {decision.original}, which failed")
            return Outcome(entry, failed_answer(self.model, self.task, entry.name, error))
        answer = unpack(text)
        answer.source = decision.entry.name
        return self._with_sidecar(decision, answer, None)

    def _finish(self, decision: _Decision, answer: Answer) -> Outcome:
        entry = decision.entry
        answer.source = entry.name
        if answer.error is None and self._has_changed(decision):  # which content was answered is not known
            error = ImageDecodeError(f"{entry.name}: the file has changed while it was read")
            return Outcome(entry, failed_answer(self.model, self.task, entry.name, error))
        if answer.error is not None:
            return Outcome(entry, answer)
        return self._with_sidecar(decision, answer, pack(answer))

    def _has_changed(self, decision: _Decision) -> bool:
        """Whether the file has another content than before it was decoded; one that is gone has not."""
        try:
            return decision.content not in (b"", decision.entry.digest(self.journal))
        except JournalError:
            raise
        except (OSError, KosmosError):
            return False

    def _with_sidecar(self, decision: _Decision, answer: Answer, packed: str | None) -> Outcome:
        """Keeps a new answer, and writes the sidecar unless it is there. packed: of a new answer."""
        entry, known = decision.entry, packed is None
        path = self._sidecar_path(entry)
        try:
            planned = None if path is None else self._plan(entry, path, decision.key, answer)
            if packed is not None:  # before the sidecar: a kill in between is seen by the digests of both contents
                self.journal.keep(decision.key, packed, [] if planned is None else [planned.row])
            elif planned is not None:
                self.journal.intend(decision.key, [planned.row])
            if planned is not None:
                planned.write()
                self.journal.finish(planned.path)
        except KosmosError as error:
            if isinstance(error, JournalError) or (isinstance(error, OSError) and error.errno in _FOR_ALL):
                raise
            if packed is not None:
                self.journal.keep(decision.key, packed)
            return Outcome(entry, failed_answer(self.model, self.task, entry.name, error))
        return Outcome(entry, answer, known=known, sidecar=path)

    def _plan(self, entry: Entry, path: str, key: bytes, answer: Answer) -> Planned | None:
        """What is to be written; None if the sidecar is there already."""
        assert self.sidecars is not None and entry.path is not None
        ours = self.journal.written(path) if self.resume else None
        if ours is not None and ours.key == key:
            before = read_whole(path)
            found = None if before is None else digest_bytes(before)
            if ours.done and found is not None:  # and should somebody have changed it since, it stays so
                return None
            if found == ours.after:
                self.journal.finish(path)
                return None
            if found == ours.before or (ours.done and found is None):
                return Planned(path, before, self.sidecars.content(answer, entry.name, before, path))
        return self.sidecars.plan(entry.path, entry.name, answer)
