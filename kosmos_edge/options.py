"""Generation options: names, ranges and defaults, checked once before anything is computed."""

from __future__ import annotations

import difflib
import math
import numbers
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, get_args

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest

limits = _core.limits
DEFAULT_CANDIDATES = 5  # top_k of contrastive search
Normalize: TypeAlias = Literal["sum", "mean", "characters"]  # of scores, see Model.score


class Cancellable(Protocol):
    """An alternative to a CancelToken for `cancel`: a threading.Event or anything with is_set()."""

    def is_set(self) -> bool:
        """True when the call should end."""


class GenerationOptions(TypedDict, total=False):
    """Keyword arguments that every generating verb takes."""

    max_tokens: int  # 1..context length; default: the model's (<architecture>.generation.max_new_tokens)
    temperature: float  # 0 (greedy, the default) .. 100; below 1e-45 it is 0
    top_k: int  # 1..vocabulary size; needs temperature > 0, or one of the two below (1..100, default 5: candidates)
    degeneration_penalty: float  # 0 (off, the default) .. 1: contrastive search, see docs/guided.md
    image_weight: float  # 0 (off, the default) .. 100: prefer tokens that fit the image, as the guide says
    guide: Any  # of image_weight: "self" (the default), a model such as CLIP, or a function (picture, texts) -> scores
    top_p: float  # above 0, at most 1; needs temperature > 0
    seed: int  # 0..2^64-1, default 0
    num_beams: int  # 1..8, default 1; needs temperature 0
    length_penalty: float  # -10..10, default 1; needs num_beams > 1
    no_repeat_ngram_size: int  # 0 (off)..context length; default: the model's (3 as published)
    repetition_penalty: float  # 0.125..100, 1: off; default: the model's (1 for most); above 1: fewer repeats
    stop: str | Sequence[str]  # texts that end the answer; the text found is not part of it
    logprobs: bool  # return ln p of every token
    top_logprobs: int  # 0..20: as many of the likeliest tokens for each of the answer's, Result.top_logprobs
    min_score: (
        float  # 0 (the default: all) .. 1: entities with a lower sureness (see Entity) are left out of the Result
    )
    grammar: bool  # keep location tokens well formed; default True for the verbs, False for generate
    template: str  # caption, locate, describe, ask: the prompt instead of the model's, see Model
    cancel: Any  # a CancelToken or a Cancellable; Cancelled is raised soon after it is set


@dataclass(frozen=True, slots=True)
class Options:
    """Checked options."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    num_beams: int
    length_penalty: float
    no_repeat_ngram_size: int
    repetition_penalty: float
    stop: tuple[str, ...]
    logprobs: bool
    grammar: bool
    choices: tuple[str, ...] = ()
    cancel: Any = None
    default_length: bool = False  # max_tokens is the model's, not the caller's: a longer choice raises it
    min_score: float = 0.0
    top_logprobs: int = 0  # logprobs is True if it is not 0
    fitted: bool = False  # the choices have been checked, and max_tokens is enough for them
    degeneration_penalty: float = 0.0
    image_weight: float = 0.0
    guide: Any = None  # "self", an object with similarity_judge, or a function; None where image_weight is 0

    @property
    def contrasts(self) -> bool:
        """Whether candidates are compared, which is done for one answer at a time."""
        return self.degeneration_penalty > 0 or self.image_weight > 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The model's limits and defaults for options."""

    context_length: int
    vocabulary: int
    max_tokens: int
    no_repeat_ngram_size: int
    grounds: bool = True  # the model has location tokens
    repetition_penalty: float = 1.0


def check_options(given: Mapping[str, Any], facts: Limits, *, grammar: bool, choices: object = None) -> Options:
    """Options with defaults filled in; InvalidRequest names the option, its range and the value."""
    known = GenerationOptions.__annotations__
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known options are {', '.join(known)}"
            raise InvalidRequest(f"unknown option {name}{hint}")
    if "template" in given:
        raise InvalidRequest("template: only caption, locate, describe and ask take one")
    checked_choices = check_texts("choices", choices, limits.MAX_CHOICES) if choices is not None else ()
    context, penalty = facts.context_length, limits.MAX_LENGTH_PENALTY
    contrast = check_float("degeneration_penalty", given.get("degeneration_penalty", 0.0), 0, 1)
    weight = check_float("image_weight", given.get("image_weight", 0.0), 0, limits.MAX_IMAGE_WEIGHT)
    contrasts = contrast > 0 or weight > 0
    named = contrasts or not {"degeneration_penalty", "image_weight"}.isdisjoint(given)  # 0 is greedy decoding
    most = min(facts.vocabulary, limits.MAX_CANDIDATES) if named else facts.vocabulary
    top = check_int("top_logprobs", given.get("top_logprobs", 0), 0, limits.MAX_TOP_LOGPROBS)
    out = Options(
        max_tokens=check_int("max_tokens", given.get("max_tokens", facts.max_tokens), 1, context),
        temperature=check_float("temperature", given.get("temperature", 0.0), 0, limits.MAX_TEMPERATURE),
        top_k=check_int("top_k", given.get("top_k", DEFAULT_CANDIDATES if contrasts else 0), 1, most)
        if "top_k" in given or contrasts
        else 0,
        top_p=check_float("top_p", given.get("top_p", 1.0), 0, 1, above=True),
        seed=check_int("seed", given.get("seed", 0), 0, 2**64 - 1),
        num_beams=check_int("num_beams", given.get("num_beams", 1), 1, limits.MAX_BEAMS),
        length_penalty=check_float("length_penalty", given.get("length_penalty", 1.0), -penalty, penalty),
        no_repeat_ngram_size=check_int(
            "no_repeat_ngram_size", given.get("no_repeat_ngram_size", facts.no_repeat_ngram_size), 0, context
        ),
        repetition_penalty=check_float(
            "repetition_penalty",
            given.get("repetition_penalty", facts.repetition_penalty),
            limits.MIN_REPETITION_PENALTY,
            limits.MAX_REPETITION_PENALTY,
        ),
        stop=check_stop(given.get("stop", ())),
        logprobs=check_bool("logprobs", given.get("logprobs", top > 0)) or top > 0,
        grammar=check_bool("grammar", given.get("grammar", grammar and not checked_choices)),
        choices=checked_choices,
        cancel=check_cancel(given.get("cancel")),
        default_length="max_tokens" not in given,
        min_score=check_float("min_score", given.get("min_score", 0.0), 0, 1),
        top_logprobs=top,
        degeneration_penalty=contrast,
        image_weight=weight,
        guide=_check_guide(given, weight),
    )
    if contrasts:
        _check_contrast(out)
    _core.check_together(
        num_beams=out.num_beams,
        temperature=out.temperature,
        top_k="top_k" in given and not named,
        top_p="top_p" in given,
        length_penalty="length_penalty" in given,
        stop=bool(out.stop),
        choices=bool(out.choices),
        grammar=out.grammar,
        grounds=facts.grounds,
    )
    return out


def _check_guide(given: Mapping[str, Any], weight: float) -> Any:
    """The guide; "self" where there is none."""
    guide = given.get("guide")
    if weight == 0:
        if guide is not None:
            raise InvalidRequest("guide: needs image_weight above 0")
        return None
    if guide is None or (isinstance(guide, str) and guide == "self"):
        return "self"
    if isinstance(guide, str) or not (hasattr(guide, "similarity_judge") or callable(guide)):
        raise InvalidRequest(
            f'guide: expected "self", a loaded model such as CLIP, or a function (picture, texts), got {guide!r}'
        )
    info = getattr(guide, "model_info", None)
    if info is not None and not info["embedding"]:
        name = getattr(guide, "name", "this model")
        raise InvalidRequest(f"guide: {name} writes text and does not compare it; expected a model such as CLIP")
    return guide


def _check_contrast(out: Options) -> None:
    """InvalidRequest where candidates are compared and something else decides, too."""
    name = "degeneration_penalty" if out.degeneration_penalty > 0 else "image_weight"
    if out.temperature > 0:
        raise InvalidRequest(f"{name} needs temperature 0, got {out.temperature:g}")
    if out.num_beams > 1:
        raise InvalidRequest(f"{name} needs num_beams 1, got {out.num_beams}")
    if out.choices:
        raise InvalidRequest(f"{name} and choices contradict each other: choose one")


def check_int(name: str, value: object, low: int, high: int) -> int:
    """An integer (anything with __index__ but bool) in low..high, or InvalidRequest."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidRequest(f"{name}: expected an integer in {low}..{high}, got {value!r}") from None
    if not low <= number <= high:
        raise InvalidRequest(f"{name}: expected an integer in {low}..{high}, got {number}")
    return number


def check_float(name: str, value: object, low: float, high: float, *, above: bool = False) -> float:
    """A finite number in low..high (above: low itself is excluded), or InvalidRequest."""
    try:
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer or a fraction beyond every float
        number = math.nan
    if not (low < number <= high if above else low <= number <= high):
        span = f"above {low:g} and at most {high:g}" if above else f"in {low:g}..{high:g}"
        raise InvalidRequest(f"{name}: expected a number {span}, got {value!r}")
    return number


def check_bool(name: str, value: object) -> bool:
    """A bool, or InvalidRequest."""
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: expected True or False, got {value!r}")
    return value


def check_normalize(name: object) -> str:
    """A name of Normalize; else InvalidRequest."""
    names = get_args(Normalize)
    if name not in names:
        raise InvalidRequest(f"normalize: expected one of {', '.join(map(repr, names))}, got {name!r}")
    return str(name)


def check_text(name: str, value: object, *, empty: bool = False) -> str:
    """A string that is valid Unicode and not blank (unless empty is allowed), or InvalidRequest."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name}: expected text, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name}: not valid Unicode text ({error.reason} at character {error.start})") from None
    if not empty and not value.strip():
        raise InvalidRequest(f"{name}: expected some text, got {value!r}")
    return value


def check_texts(name: str, values: object, most: int) -> tuple[str, ...]:
    """1..most non-blank strings, or InvalidRequest. A single string is refused, although it is a sequence."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise InvalidRequest(f"{name}: expected a list of texts, got {values!r}")
    if not 1 <= len(values) <= most:
        raise InvalidRequest(f"{name}: expected 1..{most} texts, got {len(values)}")
    return tuple(check_text(f"{name}[{number}]", value) for number, value in enumerate(values))


def check_stop(value: object) -> tuple[str, ...]:
    """One stop text or several of them, none empty (blanks are allowed), or InvalidRequest."""
    values: Sequence[object]
    if isinstance(value, str):
        values = (value,)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        values = value
    else:
        raise InvalidRequest(f"stop: expected a text or a list of texts, got {value!r}")
    if len(values) > limits.MAX_STOPS:
        raise InvalidRequest(f"stop: expected at most {limits.MAX_STOPS} texts, got {len(values)}")
    out = tuple(check_text(f"stop[{number}]", text, empty=True) for number, text in enumerate(values))
    if "" in out:
        raise InvalidRequest("stop: an empty text would end every answer at once")
    return out


def check_cancel(value: Any) -> Any:
    """None, a CancelToken (has `cancelled`), or something with is_set(); else InvalidRequest."""
    if value is None or hasattr(value, "cancelled") or callable(getattr(value, "is_set", None)):
        return value
    raise InvalidRequest(f"cancel: expected a CancelToken or a threading.Event, got {value!r}")
