"""What evaluation harnesses ask of a language model, computed by a Model: likelihoods by token ids, and continuations.

The conventions are those of lm-evaluation-harness. Needs a model in this process, whose tokenizer is at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from kosmos_edge.errors import ContextTooLong, InvalidRequest
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.tasks import Plan
from kosmos_edge.loading import KvType, load
from kosmos_edge.model import Model
from kosmos_edge.options import GenerationOptions, limits

DEFAULT_TOKENS = 256  # of an answer, as in the harnesses
# generation option of a harness -> ours
SAMPLING = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "num_beams": "num_beams"}
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens")
UNUSED = ("do_sample", "until", "image_aspect_ratio", "use_cache")  # read elsewhere, or without a meaning here


class HarnessModel:
    """One model, as harnesses use it. Options of generation that a task does not set are the model's own."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._engine = model._open.engine
        if not hasattr(self._engine, "score"):
            raise InvalidRequest("model: expected one in this process, got isolation='process'")
        self._room = self._engine.context_length - 1  # behind the token that begins every prompt

    @classmethod
    def load(
        cls, pretrained: str, *, device: str | None, threads: object, mmproj: str | None, kv_type: KvType
    ) -> HarnessModel:
        """A model by tag or file, with a harness's arguments."""
        count = None if threads is None else int(str(threads))
        return cls(load(pretrained, device=device or "auto", threads=count, mmproj=mmproj, kv_type=kv_type))

    # ---- text alone

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both: the continuation's are those of the whole text behind what it has in common with the
        context's. Blanks that end the context belong to the continuation."""
        bare = context.rstrip()
        continuation = context[len(bare) :] + continuation
        encode = self._engine.tokenizer.encode
        before, whole = encode(bare) if bare else [], encode(bare + continuation)
        common = 0
        while common < min(len(before), len(whole)) and before[common] == whole[common]:
            common += 1
        return whole[:common], whole[common:]

    def loglikelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        """(ln p of the continuation, whether greedy decoding would give it). An empty context is the begin token alone;
        a long one is cut from the left. InvalidRequest if the continuation has no tokens, ContextTooLong if it does not
        fit."""
        before, after = self.encode_pair(context, continuation)
        if not after:
            raise InvalidRequest(f"continuation: expected some text, got {continuation!r}")
        return self._score(before, after)

    def loglikelihood_rolling(self, text: str) -> float:
        """ln p of the whole text, in disjoint windows: each as long as the context allows, behind the token before it,
        the first behind the begin token, the last behind as many tokens as fit."""
        ids = self._engine.tokenizer.encode(text)
        found, done = [], 0
        while done < len(ids):
            size = min(len(ids) - done, self._room - (1 if done else 0))
            end = done + size
            found.append(self._score(ids[max(end - self._room, 0) : done], ids[done:end])[0])
            done = end
        return math.fsum(found)

    def _score(self, before: list[int], after: list[int]) -> tuple[float, bool]:
        room = self._room - len(after)
        if room < 0:
            raise ContextTooLong(
                f"the continuation has {len(after)} tokens, the model has {self._room} positions behind its first token"
            )
        before = before[max(len(before) - room, 0) :]
        (scored,) = self._engine.score([("ids", before)], [[("ids", after)]]).continuations
        return math.fsum(scored.logprobs), scored.greedy

    def generate(self, context: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
        """What the model continues the context with, without the stop text. A long context is cut from the left."""
        options = self.options(settings, defaults)
        room = self._room - options["max_tokens"]
        if room < 1:
            raise ContextTooLong(
                f"max_gen_toks: expected less than the context's {self._room + 1}, got {options['max_tokens']}"
            )
        ids = self._engine.tokenizer.encode(context)
        plan = Plan("generate", [("ids", ids[max(len(ids) - room, 0) :])], grammar=False)  # type: ignore[list-item]
        return self.model.run_plan(plan, options).text

    # ---- images

    def loglikelihood_behind(
        self, images: Sequence[EncodedImage], context: str, continuation: str
    ) -> tuple[float, bool]:
        """The same behind images and the context. The continuation is ranked as score_segments does."""
        if continuation.startswith(" ") and not context.endswith(" "):
            context += " "
        ranking = self.model.score_segments([*images, context], [continuation.removeprefix(" ")])
        return ranking.best.logprob_sum, ranking.best.greedy

    def generate_behind(
        self, images: Sequence[EncodedImage], context: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> str:
        """What the model continues images and the context with. ContextTooLong if they do not fit."""
        options = self.options(settings, defaults)
        return self.model.generate([*images, context], **options).text

    @staticmethod
    def options(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> GenerationOptions:
        """Our generation options for a harness's settings; InvalidRequest for those that have no counterpart."""
        given = {name: value for name, value in settings.items() if value is not None}
        unknown = sorted(set(given) - {*SAMPLING, *LENGTHS, *UNUSED})
        if unknown:
            raise InvalidRequest(f"{unknown[0]}: not an option of generation here; known are {', '.join(SAMPLING)}")
        lengths = [int(given[name]) for name in LENGTHS if name in given]
        out: dict[str, Any] = {**defaults, "max_tokens": lengths[0] if lengths else DEFAULT_TOKENS}
        out |= {ours: given[name] for name, ours in SAMPLING.items() if name in given}
        warmth = out.get("temperature", 1.0 if given.get("do_sample") else 0.0)
        if given.get("do_sample", warmth > 0) and warmth > 0:
            out["temperature"] = float(warmth)
        else:  # greedy: the harnesses then leave these without an effect
            for name in ("temperature", "top_p", "top_k"):
                out.pop(name, None)
        stop = given.get("until", ())
        texts = [text for text in ([stop] if isinstance(stop, str) else stop) if text]
        if len(texts) > limits.MAX_STOPS:
            raise InvalidRequest(f"until: expected at most {limits.MAX_STOPS} texts, got {len(texts)}")
        return cast(GenerationOptions, out | ({"stop": texts} if texts else {}))


def own_options(no_repeat_ngram_size: object, num_beams: object) -> dict[str, Any]:
    """Options of all answers from a harness's model arguments, which may be strings; None: the model's own."""
    given = {"no_repeat_ngram_size": no_repeat_ngram_size, "num_beams": num_beams}
    return {name: int(str(value)) for name, value in given.items() if value is not None}
