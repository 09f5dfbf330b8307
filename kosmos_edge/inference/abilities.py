"""Verbs that are made of other requests: classify, reason, iq, webqa, and the pool of few-shot examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, get_args, overload

from kosmos_edge.errors import ContextTooLong, InvalidRequest
from kosmos_edge.images import ImageInput
from kosmos_edge.inference import ability_plans as plans
from kosmos_edge.inference import running
from kosmos_edge.inference.ability_results import Candidate, IqAnswer, Reasoned, total
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.requests import GenerateRequest, Request, ScoreRequest
from kosmos_edge.inference.shots import ExamplePool
from kosmos_edge.inference.similarity import Similarities
from kosmos_edge.inference.tasks import Plan, ScorePlan
from kosmos_edge.inference.web_text import visible_text
from kosmos_edge.options import (
    GenerationOptions,
    Normalize,
    Options,
    check_cancel,
    check_int,
    check_normalize,
    check_text,
)
from kosmos_edge.results import Ranking, Result

By: TypeAlias = Literal["likelihood", "choices", "free"]


class Abilities(Similarities):
    """These verbs of Model."""

    if TYPE_CHECKING:  # what they need of it

        def encode(self, image: ImageInput, *, cancel: Any = None) -> EncodedImage: ...
        def _run(self, plan: Plan, stream: bool, options: GenerationOptions) -> Any: ...
        def _options(self, plan: Plan, options: GenerationOptions) -> Options: ...

    @overload
    def classify(
        self,
        image: ImageInput | EncodedImage,
        labels: Sequence[str],
        *,
        question: str | None = None,
        prompt: str | None = None,
        category: str | None = None,
        descriptions: Mapping[str, str] | None = None,
        by: Literal["likelihood"] = "likelihood",
        normalize: Normalize = "sum",
        examples: Sequence[tuple[ImageInput | EncodedImage, str]] = (),
        **options: Unpack[GenerationOptions],
    ) -> Ranking: ...
    @overload
    def classify(
        self,
        image: ImageInput | EncodedImage,
        labels: Sequence[str],
        *,
        question: str | None = None,
        prompt: str | None = None,
        category: str | None = None,
        descriptions: Mapping[str, str] | None = None,
        by: Literal["choices", "free"],
        normalize: Normalize = "sum",
        examples: Sequence[tuple[ImageInput | EncodedImage, str]] = (),
        **options: Unpack[GenerationOptions],
    ) -> Result: ...
    @overload
    def classify(
        self,
        image: ImageInput | EncodedImage,
        labels: Sequence[str],
        *,
        question: str | None = None,
        prompt: str | None = None,
        category: str | None = None,
        descriptions: Mapping[str, str] | None = None,
        by: By,
        normalize: Normalize = "sum",
        examples: Sequence[tuple[ImageInput | EncodedImage, str]] = (),
        **options: Unpack[GenerationOptions],
    ) -> Ranking | Result: ...
    def classify(
        self,
        image: ImageInput | EncodedImage,
        labels: Sequence[str],
        *,
        question: str | None = None,
        prompt: str | None = None,
        category: str | None = None,
        descriptions: Mapping[str, str] | None = None,
        by: By = "likelihood",
        normalize: Normalize = "sum",
        examples: Sequence[tuple[ImageInput | EncodedImage, str]] = (),
        **options: Unpack[GenerationOptions],
    ) -> Ranking | Result:
        """Which of the labels (1..1000 different texts) fits the image.

        The prompt is "The photo of the", or `prompt` instead; or `question` in the model's question format; or with
        category, what all labels are, `descriptions` of them (one for each) and "what is the name of the {category} in
        the picture?", as in the KOSMOS-1 paper. Chat models need question or category. by "likelihood": a Ranking of
        all labels, see score for normalize; of the options only cancel. "choices": a Result with a label as its text,
        decoded with no other text allowed (num_beams=2 as published). "free": a Result with whatever the model says.
        examples: few-shot (image, label).
        """
        checked = plans.check_labels(labels)
        plan = plans.plan_classify(self._info, image, checked, question, prompt, descriptions, category, examples)
        if _ranks(by, options):
            return self._rank(plan, checked, normalize, options.get("cancel"))
        if by == "choices":
            plan.choices, plan.grammar = checked, False
        return self.run_plan(plan, options)

    def classify_request(self, values: dict[str, Any]) -> Request:
        """classify with its arguments (all of them, by name) and without its image, for a batch."""
        labels, by, normalize = plans.check_labels(values["labels"]), values["by"], values["normalize"]
        options: GenerationOptions = values["options"].copy()
        words = [values[name] for name in ("question", "prompt", "descriptions", "category", "examples")]

        def plan(image: Any) -> Plan:
            made = plans.plan_classify(self._info, image, labels, *words)
            if by == "choices":
                made.choices, made.grammar = labels, False
            return made

        if _ranks(by, options):
            behind = plan(None)
            behind.segments = plans.with_blank(behind.segments)
            score = ScorePlan(labels, "", "", check_normalize(normalize), behind)
            return ScoreRequest(self.name, score, check_cancel(options.get("cancel")))
        return GenerateRequest(self.name, plan, self._open.fit(self._options(plan(None), options)))

    def reason(
        self,
        image: ImageInput | EncodedImage,
        question: str,
        *,
        rationale_prompt: str = plans.INTRODUCE,
        rationale_tokens: int = 128,
        choices: Sequence[str] | None = None,
        normalize: Normalize = "sum",
        examples: Sequence[tuple[ImageInput | EncodedImage, str, str, str]] = (),
        **options: Unpack[GenerationOptions],
    ) -> Reasoned:
        """Answers a question in two stages (multimodal chain of thought): a rationale, then the answer behind it.

        Stage 1: the image and rationale_prompt; at most rationale_tokens (1..context length) tokens. Stage 2: the
        image, the rationale and the question. choices: the answer is the most likely of them, and Reasoned.scores has
        all; the options are then those of the rationale, without max_tokens and stop. examples: few-shot (image,
        question, rationale, answer), of which each stage shows its part. The image is encoded once.
        """
        prompt, length, texts = self._check_reason(question, rationale_prompt, rationale_tokens, choices, options)
        cancel = options.get("cancel")
        shots = [
            (self._encoded(shot, cancel), asked, said, answer)
            for shot, asked, said, answer in plans.check_rationales(examples)
        ]
        shown = self._encoded(image, cancel)
        first = options.copy()
        first["max_tokens"] = length
        first.pop("stop", None)
        rationale = self.run_plan(plans.plan_rationale(self._info, shown, prompt, shots), first)
        said = rationale.text.strip()
        plan = plans.plan_conclusion(self._info, shown, prompt, said, question, shots)
        if not said:
            plan.notes.append("the rationale is empty")
        if texts is None:
            out = Reasoned.of(self.run_plan(plan, options), rationale)
        else:
            ranking = self._rank(plan, texts, normalize, cancel)
            out = Reasoned.of(_as_result(ranking), rationale)
            out.scores = ranking.ranking
        out.rationale = said
        return out

    def _check_reason(
        self,
        question: str,
        rationale_prompt: str,
        rationale_tokens: int,
        choices: Sequence[str] | None,
        options: GenerationOptions,
    ) -> tuple[str, int, tuple[str, ...] | None]:
        """The rationale's prompt and length, and the choices."""
        check_text("question", question)
        prompt = check_text("rationale_prompt", rationale_prompt)
        length = check_int("rationale_tokens", rationale_tokens, 1, int(self._info["context"]))
        texts = None if choices is None else plans.check_labels(choices)
        if texts is not None:
            for name in ("max_tokens", "stop"):
                if name in options:
                    raise InvalidRequest(f"{name}: a choice is its own end; rationale_tokens limits the rationale")
        return prompt, length, texts

    def check_reason(self, values: Mapping[str, Any]) -> None:
        """Raises what reason would raise about these arguments (all of them, by name) for any image, for a batch."""
        options: GenerationOptions = values["options"].copy()
        question, prompt, length = (values[name] for name in ("question", "rationale_prompt", "rationale_tokens"))
        prompt, length, texts = self._check_reason(question, prompt, length, values["choices"], options)
        check_normalize(values["normalize"])
        shots = plans.check_rationales(values["examples"])
        first = options.copy()
        first["max_tokens"] = length
        first.pop("stop", None)
        self._open.fit(self._options(plans.plan_rationale(self._info, None, prompt, shots), first))
        if texts is None:
            plan = plans.plan_conclusion(self._info, None, prompt, "", question, shots)
            self._open.fit(self._options(plan, options))

    def iq(
        self,
        pictures: Sequence[ImageInput | EncodedImage],
        candidates: Sequence[ImageInput | EncodedImage],
        *,
        cancel: Any = None,
    ) -> IqAnswer:
        """Which candidate completes Raven's matrix: that with the highest P("Yes") behind "Is it correct?".

        pictures: the 1..12 given cells of the matrix, row by row. The prompt is that of the KOSMOS-1 paper, "Here are
        three images:", the cells, " The following image is:", one candidate, " Is it correct?", once per candidate;
        what stands before the candidate is computed once. Where the tokenizer has no piece for "Yes", the probability
        of all its pieces is taken.
        """
        for name, values in (("pictures", pictures), ("candidates", candidates)):
            if isinstance(values, str | bytes) or not isinstance(values, Sequence) or not values:
                raise InvalidRequest(f"{name}: expected a list of images, got {values!r}")
        plans.matrix_segments(pictures, None)  # checks their number before anything is encoded
        cells = [self._encoded(picture, cancel) for picture in pictures]
        found, rankings = [], []
        for candidate in candidates:
            shown = self._encoded(candidate, cancel)
            plan = plans.plan_sequence(self._info, plans.matrix_segments(cells, shown))
            ranking = self._rank(plan, ("Yes", "No"), "sum", cancel)
            chance = {row.text: math.exp(row.logprob_sum) for row in ranking.ranking}
            found.append(Candidate(shown.source, chance["Yes"], chance["No"]))
            rankings.append(ranking)
        notes = list(dict.fromkeys(note for ranking in rankings for note in ranking.notes))
        times = total([ranking.timings for ranking in rankings])
        return IqAnswer(found, rankings[0].device, self.name, times, notes)

    def webqa(
        self,
        image: ImageInput | EncodedImage | None,
        question: str,
        *,
        html: str | None = None,
        text: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Result:
        """Answers a question about a web page from its screenshot (None: without one) and its text.

        html: the page's source, whose visible text is taken; text: the text itself. The prompt is that of the KOSMOS-1
        paper for WebSRC; without html and text it has no context. A text that is too long for the model is cut at its
        end, and a note says so.
        """
        asked = check_text("question", question)
        if html is not None and text is not None:
            raise InvalidRequest("html and text: expected one of them")
        page = visible_text(check_text("html", html)) if html is not None else ""
        if text is not None:
            page = " ".join(check_text("text", text).split())
        shown = None if image is None else self._encoded(image, options.get("cancel"))
        words = page.split(" ")
        kept = len(words)
        while True:
            plan = plans.plan_web(self._info, shown, asked, " ".join(words[:kept]))
            if kept < len(words):
                plan.notes.append(f"the page's text was cut to its first {kept} of {len(words)} words")
            try:
                return self.run_plan(plan, options)
            except ContextTooLong:  # known before anything is computed
                if kept <= 1:
                    raise
                kept -= max(kept // 16, 1)

    def example_pool(self, examples: Sequence[Sequence[Any]]) -> ExamplePool:
        """Examples to pick from for every request: pool.draw(4, item="17"), pool.nearest(photo, 4).

        An example is (image, text, ...), as the verb's `examples` takes it.
        """
        return ExamplePool(self.encode, examples)

    # ---- inside

    def _encoded(self, image: ImageInput | EncodedImage, cancel: Any) -> EncodedImage:
        return image if isinstance(image, EncodedImage) else self.encode(image, cancel=cancel)

    def run_plan(self, plan: Plan, options: GenerationOptions) -> Result:
        """The whole answer to a plan."""
        result = self._run(plan, False, options)
        assert isinstance(result, Result)
        return result

    def _rank(self, plan: Plan, texts: tuple[str, ...], normalize: Normalize, cancel: Any) -> Ranking:
        """The texts behind the plan's prompt, with a blank between."""
        plan.segments = plans.with_blank(plan.segments)
        score = ScorePlan(texts, "", "", check_normalize(normalize), plan)
        return running.run(partial(self._open.score, self.name, None, score), check_cancel(cancel))


def _ranks(by: object, options: Mapping[str, Any]) -> bool:
    """Whether classify ranks; InvalidRequest for another word, and for options of generation without a use."""
    if by not in get_args(By):
        raise InvalidRequest(f"by: expected one of {', '.join(map(repr, get_args(By)))}, got {by!r}")
    useless = sorted(set(options) - {"cancel"}) if by == "likelihood" else []
    if useless:
        raise InvalidRequest(f"{useless[0]}: expected with by='choices' or 'free', which generate text")
    return by == "likelihood"


def _as_result(ranking: Ranking) -> Result:
    """The most likely text as an answer."""
    best = ranking.best
    return Result(
        best.text,
        token_ids=list(best.token_ids),
        finish_reason="choice",
        device=ranking.device,
        model=ranking.model,
        width=ranking.width,
        height=ranking.height,
        timings=ranking.timings,
        notes=list(ranking.notes),
        source=ranking.source,
    )
