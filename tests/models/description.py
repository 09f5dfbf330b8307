"""What the suite must be told of a model: tests/models/NAME.py has a subclass of `Described` for each row of the
engine's registry, and `DESCRIBED` finds them.

A case is one request that every model with its task is given; the description says which prompt that request must
become. Answers are those of a definition in NumPy that shares no code with the engine (helpers in reference.py).
"""

import abc
import functools
import importlib
import pkgutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from helpers.tiny import GgufContent, Tiny

import models
from kosmos_edge import _core

# ("image", n): the n-th picture of the case. ("text", words). ("tags", words with tag strings that are tags).
# ("ids", tokens).
Segments = list[tuple[str, Any]]

BOX = (0.1, 0.1, 0.9, 0.9)  # of describe, in fractions of the picture
QUESTION, PHRASE, SHOT = "what is this?", "a cat", ("what color is it?", "red")
TEXTS = ["a cat", "a dog", "the snow on the table"]  # of score
MAX_TOKENS = 24


@dataclass(frozen=True)
class Case:
    """One request: a task and how it is decoded."""

    name: str
    task: str
    arguments: dict[str, Any] = field(default_factory=dict)
    pictures: int = 1
    beams: int = 1
    max_tokens: int = MAX_TOKENS


CASES = {
    case.name: case
    for case in [
        Case("caption", "caption"),
        Case("long caption", "caption", {"length": "long"}),
        Case("caption by beams", "caption", beams=3, max_tokens=8),
        Case("ask", "ask", {"question": QUESTION}),
        Case("ask by beams", "ask", {"question": QUESTION}, beams=3, max_tokens=8),
        Case("ask after an example", "ask", {"question": QUESTION}, pictures=2),  # the first picture is the example's
        Case("generate", "generate"),
        Case("generate from two pictures", "generate", pictures=2),
        Case("read", "read"),
        Case("read as Markdown", "read", {"markdown": True}),
        Case("ground", "ground"),
        Case("locate", "locate", {"phrase": PHRASE}, max_tokens=1),  # it is over where no box begins
        Case("describe", "describe", {"box": BOX, "normalized": True}),
    ]
}


class Answer(Protocol):
    """What a definition's search gives."""

    ids: list[int]
    logprobs: list[float]
    margin: float  # smallest gap between what was chosen and what was not, in log-probability


class Definition(Protocol):
    """The model in NumPy. `Prompt` is its own: what `prompt` gives, with the token `ids`."""

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 -> (rows, width)."""

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Any:
        """The prompt of ids and encoded images, with what begins every prompt."""

    def logits(self, prompt: Any) -> np.ndarray:
        """(positions, vocabulary)."""

    def generate(self, prompt: Any, max_tokens: int, no_repeat_ngram_size: int = 0) -> Answer:
        """Greedy search."""

    def beam_search(
        self,
        prompt: Any,
        num_beams: int,
        max_tokens: int,
        length_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
    ) -> Answer:
        """Beam search."""

    def score(self, prompt: Any, continuation: list[int]) -> list[float]:
        """Log-probability of each token of a given continuation."""


class Described(abc.ABC):
    """One model of the registry, as a tiny one with random weights."""

    architecture: ClassVar[str]  # general.architecture
    tasks: ClassVar[list[str]]
    prompts: ClassVar[dict[str, Segments]]  # by the name of a case; "score": what the texts go on from
    # Per key of the schema: the values within the row's own bounds that no other key contradicts, so that the small
    # model must load and answer with them. By hand: a key without an entry fails.
    accepted: ClassVar[dict[str, set[Any]]]
    # What a plain piece of the vocabulary may be made of these: two that are much longer or odder than words are.
    piece_texts: ClassVar[set[str]] = {"x" * 1024, "\x1b[0m"}
    # (rows, width) of an encoded image that stands in no sequence but is looked at.
    looked_at: ClassVar[tuple[int, int] | None] = None

    @abc.abstractmethod
    def make(self, seed: int) -> Tiny:
        """The tiny model of that seed; its metadata holds everything but the checksums."""

    @abc.abstractmethod
    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> Definition:
        """The definition over weights by GGUF name."""

    @abc.abstractmethod
    def small(self) -> GgufContent:
        """The smallest complete file, some 40 KB: tests load thousands of variants of it."""

    @abc.abstractmethod
    def write_checkpoint(self, folder: Path) -> Path:
        """The tiny model as the folder that the converter reads."""

    def try_out(self, engine: _core.Engine, picture: tuple[bytes, int, int]) -> None:
        """What a model that loads must be able to do with a picture (RGB, width, height); raises its errors."""
        params = _core.GenerateParams()
        params.max_tokens = 2
        answer = engine.generate([("image", engine.encode_image(*picture)), ("text", "An image of")], params)
        assert 1 <= len(answer.token_ids) <= 2

    # What follows from these.

    @functools.cached_property
    def tiny(self) -> Tiny:
        """The model of the suite."""
        return self.make(5)

    @functools.cached_property
    def definition(self) -> Definition:
        """Its definition."""
        return self.define(self.tiny.metadata, self.tiny.weights)

    @property
    def cases(self) -> list[Case]:
        """Those whose task the model has; beams once."""
        found = [case for case in CASES.values() if case.task in self.tasks]
        searched = [case.task for case in found if case.beams > 1]
        return [case for case in found if case.beams == 1 or case.task == searched[0]]

    @property
    def plain(self) -> Case:
        """The simplest verb about one picture: a caption where the model writes captions."""
        return next(case for case in self.cases if case.task != "generate")

    def kept_shape(self, image_tokens: int) -> tuple[int, int]:
        """Of an encoded image: its rows in the decoder's sequence, or what these are made of beside words."""
        return self.looked_at or (image_tokens, self.tiny.metadata[f"{self.architecture}.embedding_length"][1])

    @functools.cached_property
    def ngram(self) -> int:
        """The model's own rule against repeats."""
        return int(self.tiny.metadata[f"{self.architecture}.generation.no_repeat_ngram_size"][1])

    def prompt(self, name: str, tokenizer: _core.Tokenizer, pictures: list[np.ndarray]) -> Any:
        """The definition's prompt of a case with these pictures; the engine's tokenizer, which has tests of its own."""
        encode = {"text": tokenizer.encode, "tags": tokenizer.encode_with_tags, "ids": list}
        return self.definition.prompt(
            [
                self.definition.encode_image(pictures[value]) if kind == "image" else encode[kind](value)
                for kind, value in self.prompts[name]
            ]
        )


def arguments_of(case: Case, pictures: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the verb of that case is called with: pictures in whatever form, without options of decoding."""
    if case.task == "generate":
        words = ["a cat.", "It is"] if case.pictures == 2 else ["It is"]
        return ([part for pair in zip(pictures, words, strict=True) for part in pair],), {}
    examples = {"examples": [(pictures[0], *SHOT)]} if case.pictures == 2 else {}
    return (pictures[-1],), {**case.arguments, **examples}


def options_of(case: Case) -> dict[str, Any]:
    """How it is decoded: without the grammar and without a penalty for repeats, which the definition does not have."""
    return {"max_tokens": case.max_tokens, "num_beams": case.beams, "grammar": False, "repetition_penalty": 1.0}


def _find() -> dict[str, Described]:
    for module in pkgutil.iter_modules(models.__path__):
        if not module.name.startswith(("test_", "conftest")):
            importlib.import_module(f"models.{module.name}")
    found, todo = {}, Described.__subclasses__()
    for kind in todo:  # also those that build on another model's
        found[kind.architecture] = kind()
        todo += kind.__subclasses__()
    return found


@functools.cache
def every() -> dict[str, Described]:
    """All descriptions, by architecture."""
    return dict(sorted(_find().items()))


def described() -> dict[str, Described]:
    """Those of models that write text: all but such as only compare images and texts, which have tests of their own."""
    return {name: of for name, of in every().items() if of.tasks != ["similarity"]}


# ---- `accepted` of the groups of rows that models share (csrc/models/schema_groups.h)

ANY_TEXT = {"", "x" * 4096}


def accepted_general(a: str) -> dict[str, set[Any]]:
    """general.*, and what users are told."""
    return {
        "general.architecture": set(),
        "general.name": ANY_TEXT,
        "general.alignment": {"max"},
        "general.quantization_version": {"max"},
        "general.file_type": {0, 1, "max"},
        f"{a}.notice": ANY_TEXT,
        f"{a}.trained_tasks": ANY_TEXT,
        f"{a}.checksum.sha256": set(),
    }


def accepted_decoder(a: str) -> dict[str, set[Any]]:
    """The decoder and the defaults of generation."""
    return {
        f"{a}.context_length": {"max"},
        f"{a}.embedding_length": set(),
        f"{a}.block_count": {1},
        f"{a}.feed_forward_length": set(),
        f"{a}.attention.head_count": {1},
        f"{a}.attention.layer_norm_epsilon": {"max"},
        f"{a}.vocab_size": set(),
        f"{a}.generation.max_new_tokens": {1},
        f"{a}.generation.no_repeat_ngram_size": {0, 1, "max"},
        f"{a}.generation.repetition_penalty": {1, "max"},
    }


def accepted_slots(a: str) -> dict[str, set[Any]]:
    """The ids of an image's rows."""
    return {f"{a}.image_token_count": set(), f"{a}.first_slot_token_id": {0, 1}}


def accepted_prompts(a: str, grounding: bool) -> dict[str, set[Any]]:
    """The formats of the verbs' prompts."""
    out: dict[str, set[Any]] = {
        f"{a}.prompt.caption": ANY_TEXT,
        f"{a}.prompt.caption_detailed": ANY_TEXT,
        f"{a}.prompt.question": set(),
    }
    boxes: dict[str, set[Any]] = {
        f"{a}.prompt.locate": set(),
        f"{a}.prompt.describe": set(),
        f"{a}.prompt.grounding": ANY_TEXT,
    }
    return out | (boxes if grounding else {})


def accepted_vision() -> dict[str, set[Any]]:
    """clip.*: the ViT."""
    return {
        "clip.has_vision_encoder": {1},
        "clip.projector_type": set(),
        "clip.use_gelu": {0},
        "clip.vision.image_size": set(),
        "clip.vision.patch_size": set(),
        "clip.vision.embedding_length": set(),
        "clip.vision.feed_forward_length": set(),
        "clip.vision.block_count": {1},
        "clip.vision.projection_dim": set(),
        "clip.vision.attention.head_count": {1},
        "clip.vision.attention.layer_norm_epsilon": {"max"},
        "clip.vision.image_mean": {0, 1, -1, "max"},
        "clip.vision.image_std": {1, "max"},
    }


def accepted_unigram() -> dict[str, set[Any]]:
    """tokenizer.ggml.* of sentencepiece's unigram model."""
    return {
        "tokenizer.ggml.model": set(),
        "tokenizer.ggml.tokens": set(),
        "tokenizer.ggml.scores": {0, 1, -1, "max"},
        "tokenizer.ggml.token_type": set(),
        "tokenizer.ggml.bos_token_id": {0},
        "tokenizer.ggml.eos_token_id": set(),
        "tokenizer.ggml.unknown_token_id": set(),
        "tokenizer.ggml.padding_token_id": {1},
        "tokenizer.ggml.add_bos_token": {1},
        "tokenizer.ggml.add_space_prefix": {1},
        "tokenizer.ggml.remove_extra_whitespaces": {1},
        "tokenizer.ggml.precompiled_charsmap": {"empty"},
    }
