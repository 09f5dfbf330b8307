"""Questions about images to a language model that sees none: captions and tags stand for the image."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from kosmos_edge.apps.endpoint import Endpoint
from kosmos_edge.apps.errors import EndpointError, TimeOver
from kosmos_edge.apps.pica.examples import Example, Pool
from kosmos_edge.apps.pica.prompts import Shot, Style, context_of, one_line, question_prompt
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.metrics.vqa import normalize
from kosmos_edge.images import AS_USUAL, Opening
from kosmos_edge.model import Model
from kosmos_edge.options import check_int, check_text

Captions: TypeAlias = Literal["general", "question", "both"]
GUIDED = "please describe this image according to the given question: {question}"  # PromptCap's
TOKENS = {"pica": 5, "promptcap": 20}  # of an answer, as published
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)


@dataclass(slots=True)
class Prompts:
    """What would be asked."""

    question: str
    context: str  # that stands for the image
    texts: list[str]  # one per member of the ensemble


@dataclass(slots=True)
class Answer:
    """What the language model says."""

    answer: str  # one line; empty if it wrote nothing
    by: str  # how it was chosen: "likelihood", "votes", or "single"
    logprob: float | None  # sum of ln p of the answer's tokens
    said: list[tuple[str, float | None]] = field(default_factory=list)  # of each prompt
    prompts: Prompts | None = None
    notes: list[str] = field(default_factory=list)
    tokens: int | None = None  # of all requests and replies; None: the endpoint does not tell all

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        record: dict[str, Any] = {"answer": self.answer, "by": self.by, "logprob": self.logprob}
        record["tokens"] = self.tokens
        record["said"] = [{"text": text, "logprob": value} for text, value in self.said]
        if self.prompts is not None:
            record |= {"question": self.prompts.question, "context": self.prompts.context}
            record["prompts"] = self.prompts.texts
        return record | {"notes": self.notes}


@dataclass(slots=True)
class _Seen:
    """What is known of the last image that was asked about: data sets have several questions in a row about one."""

    key: tuple[str, int, int]  # absolute path, size, time of change
    encoded: Any
    vector: Any = None  # by the index of the examples
    caption: str | None = None
    tags: list[str] | None = None


class Pica:
    """A model that describes, a pool of examples, and how prompts are made of them."""

    def __init__(
        self,
        model: Model,
        pool: Pool | None = None,
        *,
        shots: int | None = None,
        ensemble: int = 1,
        style: Style = "pica",
        captions: Captions = "general",
        tags: bool | None = None,
        opening: Opening = AS_USUAL,
    ) -> None:
        """shots: 0.. examples of one prompt; None: 16 with a pool, as published, else 0. ensemble: 1..100 prompts, each
        with the next most similar examples. captions: a general one, one that is guided by the question, or both. tags:
        what the model grounds, behind the caption; None: if it can. InvalidRequest for what does not fit."""
        if style not in TOKENS:
            raise InvalidRequest(f"style: expected pica or promptcap, got {style!r}")
        if captions not in ("general", "question", "both"):
            raise InvalidRequest(f"captions: expected general, question or both, got {captions!r}")
        self._shots = check_int("shots", (16 if pool else 0) if shots is None else shots, 0, 1000)
        self._ensemble = check_int("ensemble", ensemble, 1, 100)
        if self._shots and pool is None:
            raise InvalidRequest(f"shots: {self._shots} examples in a prompt need a pool of examples, got none")
        if pool is not None and self._shots * self._ensemble > len(pool.examples):
            raise InvalidRequest(
                f"expected at least {self._shots * self._ensemble} examples for all prompts ({self._shots} in each of "
                f"{self._ensemble}), got {len(pool.examples)}"
            )
        if self._ensemble > 1 and not self._shots:
            raise InvalidRequest("ensemble: without examples all its prompts are the same")
        can = model.model_info["tasks"]
        for task in (
            ["caption"] * (captions != "question") + ["ask"] * (captions != "general") + ["ground"] * bool(tags)
        ):
            if task not in can:
                raise InvalidRequest(f"{model.name} cannot {task}, which the context needs")
        self._model, self._pool, self._style, self._captions = model, pool, style, captions
        self._tags = "ground" in can if tags is None else tags
        self._opening = opening
        self._known: dict[str, str] = {}  # captions of examples' images
        self._seen: _Seen | None = None

    @property
    def described(self) -> dict[str, Any]:
        """What decides about prompts, JSON-ready: by it a file of answers knows whether a run may go on with it."""
        pool = self._pool
        examples = None if pool is None else hashlib.sha256(repr(pool.examples).encode("utf-8", "backslashreplace"))
        maker = None if pool is None or pool.index is None else pool.index.maker
        return {
            "model": self._model.name,
            "style": self._style,
            "captions": self._captions,
            "tags": self._tags,
            "shots": self._shots,
            "ensemble": self._ensemble,
            "examples": None if examples is None else examples.hexdigest(),
            "index": None if maker is None else maker.digest,
        }

    def prompts(self, image: Any, question: str) -> Prompts:
        """The prompts of a question about an image (as Model.caption takes it); nothing is sent."""
        check_text("question", question)
        if not question.strip():
            raise InvalidRequest("question: expected words, got an empty text")
        seen = self._look(image)
        near = self._near(image, seen, question, self._shots * self._ensemble)
        context = self._describe(seen, question)
        shots = [Shot(self._context_of(example), example.question, example.answer) for example in near]
        parts = [shots[n * self._shots : (n + 1) * self._shots] for n in range(self._ensemble)]
        return Prompts(question, context, [question_prompt(part, context, question, self._style) for part in parts])

    def context(self, image: Any, question: str) -> str:
        """What stands for the image."""
        return self._describe(self._look(image), question)

    def _describe(self, seen: _Seen, question: str) -> str:
        encoded, texts = seen.encoded, []
        if self._captions != "question":
            if seen.caption is None:
                seen.caption = one_line(self._model.caption(encoded).text)
            texts.append(seen.caption)
        if self._captions != "general":
            texts.append(one_line(self._model.ask(encoded, GUIDED.format(question=one_line(question))).text))
        if self._tags and seen.tags is None:
            seen.tags = self._tags_of(encoded)
        return context_of(" ".join(text for text in texts if text), seen.tags or [], self._style)

    def ask(
        self,
        endpoint: Endpoint,
        image: Any,
        question: str,
        *,
        api: Literal["completions", "chat"] = "completions",
        max_tokens: int | None = None,
        seconds: float = 300.0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """Asks each prompt and chooses the answer.

        api: "completions" continues the prompt, as published, and the answer with the largest sum of ln p is taken;
        "chat" sends it as a message and the most frequent answer is taken, as also where an endpoint tells no ln p.
        max_tokens: of an answer, 1..; None: as published, 5 (PICa) or 20 (PromptCap). seconds: for all requests.
        EndpointError, Cancelled, errors of the engine.
        """
        if api not in ("completions", "chat"):
            raise InvalidRequest(f"api: expected completions or chat, got {api!r}")
        most = TOKENS[self._style] if max_tokens is None else check_int("max_tokens", max_tokens, 1, 1 << 20)
        prompts = self.prompts(image, question)
        end = time.monotonic() + seconds
        body = {"max_tokens": most, "temperature": 0, "stop": ["\n"]}
        said: list[tuple[str, float | None]] = []
        spent: list[int | None] = []
        try:
            for prompt in prompts.texts:
                if api == "chat":
                    messages = [{"role": "user", "content": prompt}]
                    reply = endpoint.chat(body | {"messages": messages}, seconds, end, stopped)
                    said.append((reply.text.lstrip().partition("\n")[0].strip(), None))
                    spent.append(None if reply.usage is None else sum(reply.usage.values()))
                else:
                    done = endpoint.complete(body | {"prompt": prompt, "logprobs": 1}, seconds, end, stopped)
                    said.append((done.text.partition("\n")[0].strip(), _sum(done.tokens)))
                    spent.append(None if done.usage is None else sum(done.usage.values()))
        except TimeOver:
            raise EndpointError(
                f"{endpoint.url}: {len(said)} of {len(prompts.texts)} answers in {seconds:g} s"
            ) from None
        answer = choose(said)
        answer.prompts = prompts
        told = [count for count in spent if count is not None]
        answer.tokens = sum(told) if len(told) == len(spent) else None
        return answer

    def _look(self, image: Any) -> _Seen:
        """The image, encoded; the same file as the last time is not opened again."""
        if not isinstance(image, str | os.PathLike) or not os.path.isfile(image):
            return _Seen(("", 0, 0), self._model.encode(self._opening.open(image)))
        info = os.stat(image)
        key = (os.path.abspath(os.fsdecode(image)), info.st_size, info.st_mtime_ns)
        if self._seen is None or self._seen.key != key:
            self._seen = _Seen(key, self._model.encode(self._opening.open(image)))
        return self._seen

    def _near(self, image: Any, seen: _Seen, question: str, count: int) -> list[Example]:
        """The examples to show; the image's vector is computed once, of what is encoded where the index is of the same
        model."""
        if self._pool is None or not count:
            return []
        index = self._pool.index
        if index is not None and seen.vector is None:
            given = seen.encoded if index.model is self._model else image
            seen.vector = index.vector_of(given, opening=self._opening)
        return self._pool.nearest(image, question, count, self._opening, vector=seen.vector)

    def _context_of(self, example: Example) -> str:
        if example.context is not None:
            return example.context
        assert example.image is not None
        if example.image not in self._known:
            index = None if self._pool is None else self._pool.index
            caption = None if index is None else index.caption_of(example.image)
            if caption is None:
                caption = self._model.caption(self._model.encode(self._opening.open(example.image))).text
            self._known[example.image] = caption
        return self._known[example.image]

    def _tags_of(self, encoded: Any) -> list[str]:
        """The phrases that the model grounds, the surest first, without articles, each once."""
        entities = [entity for entity in self._model.ground(encoded).entities if entity.phrase]
        entities.sort(key=lambda entity: -(entity.score or 0.0))
        return list(dict.fromkeys(_ARTICLE.sub("", entity.phrase.strip()).lower() for entity in entities))


def choose(said: Sequence[tuple[str, float | None]]) -> Answer:
    """The answer of several (text, sum of ln p): the most likely; where a sum is missing the most frequent, of equally
    frequent ones the first. Empty texts count only if there is nothing else."""
    notes = []
    real = [one for one in said if one[0]]
    if not real:
        notes.append("the language model wrote nothing before the end of the line")
        real = list(said)
    elif len(real) < len(said):
        notes.append(f"{len(said) - len(real)} of {len(said)} answers were empty and do not count")
    if len(said) == 1:
        return Answer(*real[0][:1], "single", real[0][1], list(said), None, notes)
    sums = [value for _, value in real if value is not None]
    if len(sums) == len(real):
        best = max(range(len(real)), key=lambda number: sums[number])
        return Answer(real[best][0], "likelihood", sums[best], list(said), None, notes)
    votes = Counter(normalize(text.lower()) for text, _ in real)
    winner = max(real, key=lambda one: votes[normalize(one[0].lower())])
    return Answer(winner[0], "votes", None, list(said), None, notes)


def _sum(tokens: Sequence[tuple[str, float]] | None) -> float | None:
    """Of the tokens before the end of the line."""
    if tokens is None:
        return None
    total = 0.0
    for token, value in tokens:
        if "\n" in token:
            break
        total += value
    return total


__all__ = ["GUIDED", "Answer", "Captions", "Pica", "Prompts", "choose"]
