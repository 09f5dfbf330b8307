"""Contrastive search and MAGIC's rule: equal to their formulas in NumPy, over the engine's logits and hidden states."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import make_picture, write_tiny
from models.description import described, every

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.errors import Cancelled, InvalidRequest

MODELS = ["blip2", "kosmos1", "llava"]
LENGTH = 33
PICTURE = make_picture(3, 100, 80)
WORDS = [("text", "a cat of the")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    folder = tmp_path_factory.mktemp("contrastive")

    @functools.cache
    def make(name: str, seed: int) -> Path:
        path = folder / f"{name}-{seed}.gguf"
        write_tiny(path, tiny=every()[name].make(seed))
        return path

    return make


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


class Formula:
    """The token that follows, from whole sequences computed anew at every step."""

    def __init__(self, engine: _core.Engine, segments: list, blind: list | None = None) -> None:
        self.engine, self.segments, self.blind = engine, segments, blind

    def rows(self, what: str, segments: list, ids: list[int]) -> np.ndarray:
        raw, rows, cols = getattr(self.engine, what)(segments, ids)
        return np.frombuffer(raw, np.float32).reshape(rows, cols).astype(np.float64)

    def next(self, ids: list[int], alpha: float, beta: float, k: int, fit, never: list[int]) -> tuple[int, float]:
        """-> (the token, by how much it wins)"""
        logits = self.rows("logits", self.segments, ids)[-1]
        allowed = np.ones(len(logits), bool)
        allowed[never] = False
        p = np.where(allowed, softmax(np.where(allowed, logits, -np.inf)), 0)
        candidates = np.lexsort((np.arange(len(p)), -p))[:k]
        scores = (1 - alpha) * p[candidates]
        if alpha:
            for n, v in enumerate(candidates):
                h = self.rows("states", self.segments, [*ids, int(v)])
                h /= np.linalg.norm(h, axis=1, keepdims=True)
                scores[n] -= alpha * (h[:-1] @ h[-1]).max()
        if beta:
            if fit is None:
                ln = [np.log(softmax(self.rows("logits", s, ids)[-1]))[candidates] for s in (self.segments, self.blind)]
                relevance = ln[0] - ln[1]
            else:
                relevance = np.array(fit(ids, candidates.tolist()))
            scores += beta * softmax(relevance)
        order = np.sort(scores)
        return int(candidates[scores.argmax()]), float(order[-1] - order[-2]) if len(order) > 1 else 1.0


def planted(ids: list[int], candidates: list[int]) -> list[float]:
    """A guide that likes some ids, others every few steps."""
    return [3.0 * ((v * 7919 + len(ids)) % 5 == 0) + 0.01 * (v % 11) for v in candidates]


CASES = [(0.6, 0.0, 5), (0.1, 0.0, 4), (1.0, 0.0, 3), (0.4, 0.0, 11), (0.0, 2.0, 6), (0.3, 0.7, 5), (0.1, 2.0, 12)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("alpha", "beta", "k"), CASES)
def test_tokens_are_those_of_the_formula(files, name: str, alpha: float, beta: float, k: int) -> None:
    seed = 5 + CASES.index((alpha, beta, k)) % 2
    engine = engine_of(files, name, seed)
    image = engine.encode_image(PICTURE.tobytes(), 100, 80)
    segments, blind = [("image", image), *WORDS], WORDS
    guides = [planted, None] if beta else [planted]
    for fit in guides:
        params = _core.GenerateParams()
        params.max_tokens, params.degeneration_penalty, params.image_weight = LENGTH, alpha, beta
        params.top_k, params.logprobs = k, True
        if beta and fit is None:
            params.guided_by_self = True
        elif beta:
            params.set_relevance(fit)
        answer = engine.generate(segments, params)
        ids = answer.token_ids
        formula = Formula(engine, segments, blind)
        never = never_of(engine)
        for n, found in enumerate(ids):
            expected, margin = formula.next(ids[:n], alpha, beta, k, fit, never)
            assert found == expected or margin < 1e-6, (n, found, expected, margin)
        assert len(ids) == LENGTH or ids[-1] == engine.info["eos"]
        logits = formula.rows("logits", segments, ids[:-1])
        first = len(logits) - len(ids)
        ln = [float(np.log(softmax(logits[first + n]))[v]) for n, v in enumerate(ids)]
        np.testing.assert_allclose(answer.logprobs, ln, atol=1e-4)


@functools.cache
def _engine(path: Path) -> _core.Engine:
    return _core.Engine(str(path), threads=1)


def engine_of(files, name: str, seed: int) -> _core.Engine:
    return _engine(files(name, seed))


def never_of(engine: _core.Engine) -> list[int]:
    """Ids that no answer holds: those of images, and unused ones; KOSMOS, whose images' ids are words', has none."""
    info, tokenizer = engine.info, engine.tokenizer
    if info["image"]["row_step"]:
        return []
    unused = [i for i in range(tokenizer.size) if tokenizer.type(i) == 5]
    return sorted({*unused, info["image"]["row"]})


def test_some_answer_is_long_and_not_the_greedy_one(files) -> None:
    """Else the test above would prove little."""
    lengths, differ = [], 0
    for name in MODELS:
        engine = engine_of(files, name, 5)
        segments = [("image", engine.encode_image(PICTURE.tobytes(), 100, 80)), *WORDS]
        params = _core.GenerateParams()
        params.max_tokens = LENGTH
        greedy = engine.generate(segments, params).token_ids
        params.top_k, params.degeneration_penalty = 5, 0.6
        found = engine.generate(segments, params).token_ids
        lengths.append(len(found))
        differ += found != greedy
    assert max(lengths) == LENGTH and differ >= 2


def test_states_are_what_the_output_product_takes(files) -> None:
    """Behind the last norm: times the output matrix they are the logits."""
    tiny = described()["llava"].make(5)
    engine = engine_of(files, "llava", 5)
    formula = Formula(engine, WORDS)
    states, logits = (formula.rows(what, WORDS, [5, 9]) for what in ("states", "logits"))
    np.testing.assert_allclose(states @ tiny.weights["output.weight"].T, logits, atol=1e-3)


# ---- the verbs


@pytest.fixture(scope="module")
def model(files) -> kosmos_edge.Model:
    return kosmos_edge.load(files("llava", 5), threads=1)


def test_the_verbs_take_it(files, model: kosmos_edge.Model) -> None:
    plain = model.caption(PICTURE, max_tokens=LENGTH)
    off = model.caption(PICTURE, max_tokens=LENGTH, degeneration_penalty=0.0, image_weight=0.0, top_k=4)
    assert off.token_ids == plain.token_ids
    found = model.caption(PICTURE, max_tokens=LENGTH, degeneration_penalty=0.6, top_k=5)
    assert found.token_ids != plain.token_ids
    by_default = model.caption(PICTURE, max_tokens=LENGTH, degeneration_penalty=0.6)
    assert by_default.token_ids == found.token_ids
    *events, done = model.caption(PICTURE, max_tokens=LENGTH, degeneration_penalty=0.6, stream=True)
    assert done.result.token_ids == found.token_ids
    assert "".join(e.text for e in events if isinstance(e, kosmos_edge.TextDelta)) == found.text
    assert [r.token_ids for r in model.batch([PICTURE] * 2, max_tokens=LENGTH, degeneration_penalty=0.6)] == [
        found.token_ids
    ] * 2
    itself = model.caption(PICTURE, max_tokens=LENGTH, image_weight=2.0)
    assert itself.token_ids == model.caption(PICTURE, max_tokens=LENGTH, image_weight=2.0, guide="self").token_ids
    stopped = model.caption(PICTURE, max_tokens=LENGTH, degeneration_penalty=0.6, stop=found.text[5:9])
    assert stopped.finish_reason == "stop_string"
    assert stopped.text.strip() == found.text[: found.text.index(found.text[5:9])].strip()
    with kosmos_edge.load(files("llava", 5), threads=1, isolation="process") as worker:
        again = worker.caption(PICTURE, max_tokens=LENGTH, degeneration_penalty=0.6, image_weight=1.0)
        here = model.caption(PICTURE, max_tokens=LENGTH, degeneration_penalty=0.6, image_weight=1.0)
        assert again.token_ids == here.token_ids
        with pytest.raises(InvalidRequest, match="guide: a model or a function of this process cannot"):
            worker.caption(PICTURE, image_weight=1.0, guide=len)


def test_a_function_guides(model: kosmos_edge.Model) -> None:
    """One that likes "snow" alone turns the answer to it; it sees the picture and the answer's text."""
    seen: list[list[str]] = []

    def likes_snow(picture: kosmos_edge.Picture, texts: list[str]) -> list[float]:
        assert (picture.width, picture.height) == (100, 80)
        seen.append(list(texts))
        return [50.0 * text.count("snow") for text in texts]

    plain = model.caption(PICTURE, max_tokens=12)
    guided = model.caption(PICTURE, max_tokens=12, image_weight=50, top_k=100, guide=likes_snow)
    assert "snow" in guided.text and "snow" not in plain.text
    assert len(seen) == len(guided.token_ids) and all(len(texts) == 100 for texts in seen)
    assert guided.text.strip() in seen[-1]
    batch = model.batch([PICTURE], max_tokens=12, image_weight=50, top_k=100, guide=likes_snow)
    assert [r.token_ids for r in batch] == [guided.token_ids]


def test_clip_guides(files, model: kosmos_edge.Model) -> None:
    """Its scores are those of similarity, and the tokens those of the formula with them."""
    clip = kosmos_edge.load(files("clip_towers", 5), threads=1)
    answer = model.caption(PICTURE, max_tokens=12, degeneration_penalty=0.1, image_weight=2.0, top_k=6, guide=clip)
    decode, scale = model._open.engine.tokenizer.decode, clip.model_info["similarity_scale"]

    def fit(ids: list[int], candidates: list[int]) -> list[float]:
        texts = [decode([i for i in [*ids, v] if i != 2]).strip() for v in candidates]
        filled = [text or "x" for text in texts]
        cosines = clip.similarity(PICTURE, filled, truncate=True).cosines[0]
        empty = clip.similarity_judge(PICTURE, _core.CancelToken())([""])[0]
        return [scale * c if text else empty for c, text in zip(cosines, texts, strict=True)]

    engine = model._open.engine
    prompt = model._session._prompt(kosmos_edge.inference.tasks.plan_caption(  # type: ignore[union-attr]
        model._info, PICTURE, "short", False, False, ()).segments, _core.CancelToken())  # fmt: skip
    formula = Formula(engine, prompt.segments)
    for n, found in enumerate(answer.token_ids):
        expected, margin = formula.next(answer.token_ids[:n], 0.1, 2.0, 6, fit, never_of(engine))
        assert found == expected or margin < 1e-6, n
    with pytest.raises(InvalidRequest, match="guide: needs the picture itself"):
        model.caption(model.encode(PICTURE), image_weight=1.0, guide=clip)
    with pytest.raises(InvalidRequest, match=r"guide: .* writes text and does not compare"):
        model.caption(PICTURE, image_weight=1.0, guide=model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degeneration_penalty": 1.5}, r"degeneration_penalty: expected a number in 0\.\.1, got 1\.5"),
        ({"degeneration_penalty": -0.1}, r"degeneration_penalty: expected a number in 0\.\.1"),
        ({"image_weight": 101}, r"image_weight: expected a number in 0\.\.100, got 101"),
        ({"degeneration_penalty": 0.5, "top_k": 101}, r"top_k: expected an integer in 1\.\.100, got 101"),
        ({"degeneration_penalty": 0.5, "temperature": 0.5}, r"degeneration_penalty needs temperature 0, got 0\.5"),
        ({"image_weight": 1, "num_beams": 2}, "image_weight needs num_beams 1, got 2"),
        ({"guide": "self"}, "guide: needs image_weight above 0"),
        ({"image_weight": 1, "guide": "clip"}, 'guide: expected "self", a loaded model'),
        ({"image_weight": 1, "guide": lambda p, t: [0.0]}, "guide: expected a score for each of 5 texts, got 1"),
        ({"image_weight": 1, "guide": lambda p, t: [float("nan")] * 5}, "guide: expected finite scores, got nan"),
        ({"image_weight": 1, "guide": lambda p, t: "abcde"}, "guide: expected a number for each text"),
        ({"top_k": 5}, "top_k needs temperature > 0"),
    ],
)
def test_what_is_refused(model: kosmos_edge.Model, options: dict, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        model.caption(PICTURE, max_tokens=3, **options)


def test_other_refusals(model: kosmos_edge.Model) -> None:
    with pytest.raises(InvalidRequest, match="degeneration_penalty and choices contradict"):
        model.ask(PICTURE, "what?", choices=["a", "b"], degeneration_penalty=0.5)
    with pytest.raises(InvalidRequest, match="guide: the prompt has no image to be left out"):
        model.generate(["a cat"], image_weight=1.0)
    with pytest.raises(InvalidRequest, match="guide: there is no picture in the request"):
        model.generate(["a cat"], image_weight=1.0, guide=lambda p, t: [0.0] * len(t))
    engine = model._open.engine
    for change, message in (
        ({"degeneration_penalty": 1.5, "top_k": 5}, "degeneration_penalty must be in 0..1, got 1.5"),
        ({"degeneration_penalty": 0.5}, "top_k, the number of candidates, must be in 1..100"),
        ({"image_weight": 1.0, "top_k": 5}, "image_weight needs a guide"),
    ):
        params = _core.GenerateParams()
        for key, value in change.items():
            setattr(params, key, value)
        with pytest.raises(InvalidRequest, match=message):
            engine.generate(WORDS, params)
    params = _core.GenerateParams()
    params.degeneration_penalty, params.top_k = 0.5, 5
    run = _core.AnswerRun(engine, WORDS, params, [], False, False, False, False, 0.0, [])
    with pytest.raises(InvalidRequest, match="a batch takes neither degeneration_penalty nor image_weight"):
        _core.Batch(engine, 2).add(run, None)


def test_it_can_be_cancelled(model: kosmos_edge.Model) -> None:
    """In the middle, by the guide."""
    token = _core.CancelToken()
    calls = []

    def guide(picture: kosmos_edge.Picture, texts: list[str]) -> list[float]:
        calls.append(1)
        if len(calls) == 3:
            token.cancel()
        return [0.0] * len(texts)

    with pytest.raises(Cancelled):
        model.caption(PICTURE, max_tokens=30, degeneration_penalty=0.5, image_weight=1, guide=guide, cancel=token)
    assert len(calls) == 3


def test_what_the_guide_raises_passes_through(model: kosmos_edge.Model) -> None:
    def guide(picture: kosmos_edge.Picture, texts: list[str]) -> list[float]:
        raise ZeroDivisionError("of the guide")

    with pytest.raises(ZeroDivisionError, match="of the guide"):
        model.caption(PICTURE, image_weight=1, guide=guide)
