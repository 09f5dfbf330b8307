"""What a storage type costs: one model in several types, the same pictures and questions, figures side by side.

The first type is the reference. Its own greedy answers (the grounded caption and every answer; the lines of a page
where the model reads and has no captions) are fed to the other
types token by token (teacher forcing), and the distributions of the next token are compared: `kl` is the mean of
sum p ln(p / q) over the answers' tokens in nats, p the reference's; `top1_agreement` the share of tokens at which both
have the same most likely token; `location_top1_agreement` the same for location tokens of the answer. If the
pictures have labels, every type also answers freely (greedily), and is marked against the truth.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest, KosmosIOError
from kosmos_edge.inference import tasks
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.session import EngineSession
from kosmos_edge.loading import KvType, load
from kosmos_edge.model import Model
from kosmos_edge.quality.cases import Case
from kosmos_edge.quality.metrics import HIT, answers, commonest_share, constant_box, iou, match, names, plain, share
from kosmos_edge.quality.models import Source
from kosmos_edge.results import Corners, Result

ANSWER_TOKENS = 32  # longest answer to a question
PAGE_TOKENS = 256  # of a page, whose logits are kept in a file
COUNT_KINDS = ("count", "count_shape", "count_color")
YES_NO = ({"yes"}, {"no"})
Say = Callable[[str], None]

CAPTION = "caption"  # what the answers of a case are called; questions by their number


@dataclass(slots=True)
class Answers:
    """What one type says about one picture."""

    caption: Result
    replies: list[Result]
    located: tuple[float, ...] = ()  # IoU of the box given for each name that is unique in the picture
    described: tuple[bool, ...] = ()  # whether each object's box got its name

    @property
    def forced(self) -> list[list[int]]:
        """The token ids of caption and replies."""
        return [list(result.token_ids) for result in (self.caption, *self.replies)]

    @property
    def entities(self) -> list[tuple[str, list[Corners]]]:
        """Phrases and boxes of the caption."""
        return [(e.phrase, [box.normalized for box in e.boxes if box.valid]) for e in self.caption.entities]


@dataclass(slots=True)
class Distance:
    """Sums over the tokens of all answers."""

    tokens: int = 0
    same_top: int = 0
    locations: int = 0
    same_location: int = 0
    divergences: list[float] = field(default_factory=list)

    def add(
        self, rows: Sequence[tuple[float, int, int]], ids: Sequence[int], is_location: Callable[[int], bool]
    ) -> None:
        """rows: of compare_logits; ids: the tokens that were forced."""
        for (kl, ours, theirs), token in zip(rows, ids, strict=True):
            self.tokens += 1
            self.same_top += ours == theirs
            self.divergences.append(kl)
            if is_location(token):
                self.locations += 1
                self.same_location += ours == theirs

    def figures(self) -> dict[str, Any]:
        """As shares and means."""
        ordered = sorted(self.divergences)
        return {
            "kl": math.fsum(ordered) / self.tokens if self.tokens else None,
            "kl_p99": ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else None,
            "top1_agreement": self.same_top / self.tokens if self.tokens else None,
            "location_top1_agreement": self.same_location / self.locations if self.locations else None,
            "tokens": self.tokens,
        }


class _Run:
    """One loaded type at work."""

    def __init__(self, model: Model, max_tokens: int | None = None) -> None:
        """max_tokens: of a caption or the lines of a page; None: the model's, and PAGE_TOKENS."""
        self.model = model
        self.max_tokens = max_tokens
        session = model._open
        if not isinstance(session, EngineSession):
            raise InvalidRequest("quality: expected a model of this process, got one in a worker process")
        self.session = session
        grounding = model.model_info["grounding"]
        self.grounds = grounding is not None
        self.first_location = grounding["first_location"] if grounding else 0
        self.locations = self.session.engine.location_bins**2
        tasks_known = model.model_info["tasks"]
        self.reads = "caption" not in tasks_known and "read" in tasks_known
        self.asks = "ask" in tasks_known

    def is_location(self, token: int) -> bool:
        """Whether a token names a place."""
        return self.first_location <= token < self.first_location + self.locations

    def answer(self, case: Case, image: EncodedImage) -> Answers:
        """Caption or lines, answers and, if objects are known, boxes for their names and names for their boxes."""
        out = Answers(
            self._first(image),
            [self.model.ask(image, q.text, max_tokens=ANSWER_TOKENS) for q in case.questions],
        )
        known = [plain(thing.name) for thing in case.things]
        unique = [thing for thing, name in zip(case.things, known, strict=True) if known.count(name) == 1]
        if unique and self.grounds:
            thing = unique[len(case.name) % len(unique)]
            found = self.model.locate(image, f"the {thing.name}").entities
            boxes = [box.normalized for box in found[0].boxes if box.valid] if found else []
            out.located = (iou(boxes[0], thing.box) if boxes else 0.0,)
            said = self.model.describe(image, box=thing.box, normalized=True, max_tokens=ANSWER_TOKENS).text
            out.described = (names(said, thing.name),)
        return out

    def _first(self, image: EncodedImage) -> Result:
        if self.reads:
            return self.model.read(image, max_tokens=self.max_tokens or PAGE_TOKENS)
        if self.max_tokens is None:
            return self.model.caption(image, ground=self.grounds)
        return self.model.caption(image, ground=self.grounds, max_tokens=self.max_tokens)

    def forced_logits(self, case: Case, image: EncodedImage, forced: list[list[int]]) -> list[tuple[bytes, int]]:
        """For caption and replies the logits that predict each forced token: ((tokens, vocab) float32, vocab)."""
        info = self.model.model_info
        if self.reads:
            plans = [tasks.plan_read(info, image, False)]
        else:
            plans = [tasks.plan_caption(info, image, "short", self.grounds, False, ())]
        plans += [tasks.plan_ask(info, image, q.text, False, None, False, ()) for q in case.questions]
        return [self.session.forced_logits(plan, ids) for plan, ids in zip(plans, forced, strict=True)]


class _Reference:
    """The reference's answers, and its logits in a file: they would not fit into memory for a large vocabulary."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.answers: list[Answers] = []

    def add(self, answers: Answers, logits: Sequence[tuple[bytes, int]]) -> None:
        self.answers.append(answers)
        try:
            for values, _ in logits:
                self.file.write(values)
            self.file.flush()
        except OSError as error:
            raise KosmosIOError(f"cannot keep the reference's logits: {error.strerror}") from error

    def take(self, size: int) -> bytes:
        """The next bytes, in the order of writing."""
        return self.file.read(size)


def measure(
    source: Source,
    types: Sequence[str],
    cases: Sequence[Case],
    *,
    folder: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    kv_type: KvType = "f16",
    say: Say = lambda text: None,
) -> list[dict[str, Any]]:
    """One row of figures per type (see the top of this file); fractions 0..1, None if nothing could be measured.

    folder: for temporary files of types and the reference's logits. kv_type: "q8_0" adds a row for each type, with keys
    and values kept so. say: receives progress messages.
    Raises what load, the verbs and the converter raise.
    """
    if folder is not None and not os.path.isdir(folder):
        raise InvalidRequest(f"--work: {folder} is not a folder")
    rows: list[dict[str, Any]] = []
    kinds: tuple[KvType, ...] = ("f16",) if kv_type == "f16" else ("f16", kv_type)
    with tempfile.TemporaryFile(prefix="kosmos-edge-quality-", dir=folder) as spool:
        reference = _Reference(spool)
        for type in types:
            say(f"{type}: storing")
            with source.file(type, folder) as path:
                size = os.path.getsize(path)
                for kept in kinds:
                    name = type if kept == "f16" else f"{type}, kv {kept}"
                    say(f"{name}: {size / 1e6:.1f} MB, {len(cases)} images")
                    spool.seek(0)
                    with load(path, device=device, threads=threads, kv_type=kept) as model:
                        said, distance = _one_type(_Run(model), cases, reference, is_reference=not rows)
                    row = {"type": name, "n": len(cases), "file_bytes": size, "kv_type": kept}
                    rows.append(row | _figures(cases, said, reference.answers, distance))
    return rows


def _one_type(
    run: _Run, cases: Sequence[Case], reference: _Reference, is_reference: bool
) -> tuple[list[Answers], Distance]:
    if not run.asks and any(case.questions for case in cases):
        raise InvalidRequest(
            "the images have questions, and this model answers none: --pictures names a folder of images without labels"
        )
    said: list[Answers] = []
    distance = Distance()
    for number, case in enumerate(cases):
        image = run.model.encode(case.picture())
        spoken = run.answer(case, image)
        said.append(spoken)
        forced = spoken.forced if is_reference else reference.answers[number].forced
        logits = run.forced_logits(case, image, forced)
        if is_reference:
            reference.add(spoken, logits)
        for (values, vocab), ids in zip(logits, forced, strict=True):
            other = values if is_reference else reference.take(len(values))
            distance.add(_core.compare_logits(other, values, vocab), ids, run.is_location)
    return said, distance


def forced_of(
    model: Model, cases: Sequence[Case], answers: Sequence[list[list[int]]] | None, max_tokens: int
) -> tuple[list[list[list[int]]], list[tuple[bytes, int]]]:
    """-> (token ids of each case's caption or lines and replies, the logits that predict them: (tokens, vocab) float32
    and vocab, of all cases in one list). answers: of another model, forced upon this one; None: its own."""
    run = _Run(model, max_tokens)
    ids: list[list[list[int]]] = []
    logits: list[tuple[bytes, int]] = []
    for number, case in enumerate(cases):
        image = model.encode(case.picture())
        ids.append(run.answer(case, image).forced if answers is None else answers[number])
        logits += run.forced_logits(case, image, ids[-1])
    return ids, logits


# ---- figures


def _figures(
    cases: Sequence[Case], said: Sequence[Answers], reference: Sequence[Answers], distance: Distance
) -> dict[str, Any]:
    named: list[bool] = []
    overlaps: list[float] = []
    drift: list[float] = []
    by_kind: dict[str, list[bool]] = {}
    yes: list[bool] = []
    no: list[bool] = []
    counts: list[bool] = []
    for case, spoken, first in zip(cases, said, reference, strict=True):
        for (phrase, overlap, _), thing in zip(
            match(spoken.entities, [thing.box for thing in case.things]), case.things, strict=True
        ):
            named.append(names(phrase, thing.name))
            overlaps.append(overlap)
        theirs = [box for _, boxes in first.entities for box in boxes]
        drift += [overlap for _, overlap, _ in match(spoken.entities, theirs)]
        for question, reply in zip(case.questions, spoken.replies, strict=True):
            right = answers(reply.text, question.accepted)
            by_kind.setdefault(question.kind, []).append(right)
            accepted = {plain(answer) for answer in question.accepted}
            if accepted in YES_NO:
                (yes if accepted == {"yes"} else no).append(right)
            elif question.kind in COUNT_KINDS or all(answer.isdigit() for answer in accepted):
                counts.append(right)
    located = [overlap for spoken in said for overlap in spoken.located]
    pairs = list(zip(said, reference, strict=True))
    balanced = [share(yes), share(no)]
    return {
        "name_accuracy": share(named),
        "box_iou": share(overlaps),
        "box_hit_50": share(overlap >= HIT for overlap in overlaps),
        "vqa_accuracy": share(right for group in by_kind.values() for right in group),
        **distance.figures(),
        "yes_no_balanced_accuracy": share(balanced) if None not in balanced else None,
        "count_accuracy": share(counts),
        "locate_iou": share(located),
        "locate_hit_50": share(overlap >= HIT for overlap in located),
        "describe_accuracy": share(right for spoken in said for right in spoken.described),
        "caption_agreement": share(a.caption.token_ids == b.caption.token_ids for a, b in pairs),
        "answer_agreement": share(
            x.token_ids == y.token_ids for a, b in pairs for x, y in zip(a.replies, b.replies, strict=True)
        ),
        "reference_box_iou": share(drift),
        "objects": len(named),
        "questions": sum(map(len, by_kind.values())),
        "vqa_by_kind": {kind: share(group) for kind, group in sorted(by_kind.items())},
    }


def baselines(cases: Sequence[Case]) -> dict[str, Any]:
    """What could be had on these cases without looking at a picture."""
    boxes = [thing.box for case in cases for thing in case.things]
    box = constant_box(boxes) if boxes else None
    overlaps = [iou(box, other) for other in boxes] if box is not None else []
    kinds: dict[str, list[str]] = {}
    for case in cases:
        for question in case.questions:
            kinds.setdefault(question.kind, []).append(plain(question.accepted[0]))
    guesses = {kind: commonest_share(group) or 0.0 for kind, group in sorted(kinds.items())}
    total = sum(map(len, kinds.values()))
    return {
        "name_accuracy": commonest_share(plain(thing.name) for case in cases for thing in case.things),
        "box_iou": share(overlaps),
        "box_hit_50": share(overlap >= HIT for overlap in overlaps),
        "vqa_accuracy": sum(guesses[kind] * len(group) for kind, group in kinds.items()) / total if total else None,
        "yes_no_balanced_accuracy": 0.5 if kinds else None,
        "vqa_by_kind": guesses,
    }
