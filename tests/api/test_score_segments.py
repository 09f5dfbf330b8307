"""Scores of texts behind any sequence of images and texts: against the logits themselves, in Python, C and a worker."""

from ctypes import byref, c_size_t
from math import fsum

import numpy as np
import pytest
from helpers import capi
from helpers.api_model import picture, tiny_file
from helpers.capi import call, make, texts
from helpers.tiny import write_tiny
from models.description import described

import kosmos_edge
from kosmos_edge.errors import InvalidRequest

TEXTS = ["a red circle", "blue", "two green squares on a 日本 table", "yes"]


@pytest.fixture(scope="module", params=sorted(described()))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    path = tmp_path_factory.mktemp("score") / "tiny.gguf"
    write_tiny(path, tiny=described()[request.param].tiny)
    return kosmos_edge.load(path, threads=1)


def by_text(ranking: kosmos_edge.Ranking) -> dict[str, tuple]:
    return {row.text: (row.token_ids, row.logprobs, row.greedy, row.logprob_sum) for row in ranking.ranking}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    rows = logits.astype(np.float64)
    rows -= rows.max(-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(-1, keepdims=True))


def test_scores_are_those_of_the_logits(model: kosmos_edge.Model) -> None:
    """Two images with text between them; every token's ln p, and whether it is the likeliest, from forced logits."""
    engine = model._open.engine
    first, second = model.encode(picture()), model.encode(255 - picture())
    given = ["look", first, "then a", second, "it is"]
    ranking = model.score_segments(given, TEXTS)
    for row in ranking.ranking:
        ids = row.token_ids
        segments = [("image", s.embedding) if isinstance(s, kosmos_edge.EncodedImage) else ("text", s) for s in given]
        values, count, vocab = engine.logits(segments, ids[:-1])
        logits = np.frombuffer(values, np.float32).reshape(count, vocab)[-len(ids) :]
        wanted = log_softmax(logits)[np.arange(len(ids)), ids]
        np.testing.assert_allclose(row.logprobs, wanted, rtol=0, atol=2e-4)
        assert row.greedy == (logits.argmax(-1) == ids).all()
        assert row.logprob_sum == pytest.approx(fsum(row.logprobs))


def test_the_likeliest_continuation_is_greedy(model: kosmos_edge.Model) -> None:
    engine, photo = model._open.engine, model.encode(picture())
    prompt = [("image", photo.embedding), ("text", "it is")]
    values, count, vocab = engine.logits(prompt)
    best = int(np.frombuffer(values, np.float32).reshape(count, vocab)[-1].argmax())
    found = engine.score(prompt, [[("ids", [best])], [("ids", [(best + 1) % vocab])]]).continuations
    assert [c.greedy for c in found] == [True, False]


def test_an_image_with_the_caption_prompt_is_score(model: kosmos_edge.Model) -> None:
    info, photo = model.model_info, model.encode(picture())
    if info.get("latents") and info["architecture"] == "kosmos2_5":
        pytest.skip("its caption prompt has tags")
    expected = model.score(photo, TEXTS, "{image}it is {text}")
    same = model.score_segments([photo, "it is "], TEXTS)
    assert by_text(same) == by_text(expected)
    assert [row.text for row in same.ranking] == [row.text for row in expected.ranking]
    assert same.ranking[0].share == expected.ranking[0].share and (same.width, same.height) == (100, 80)
    assert model.score_segments([photo, "it is "], TEXTS).timings.reused_tokens > 0


def test_normalize(model: kosmos_edge.Model) -> None:
    for row in model.score_segments([picture(), "it is "], TEXTS, normalize="characters").ranking:
        assert row.score == row.logprob_sum / len(row.text)
    for row in model.score(picture(), TEXTS, "it is {text}, so", normalize="characters").ranking:
        assert row.score == row.logprob_sum / len(row.text)
    for row in model.score_segments([picture(), "it is "], TEXTS, normalize="mean").ranking:
        assert row.score == row.logprob_mean


def test_text_alone_and_a_blank_at_the_end(model: kosmos_edge.Model) -> None:
    """A blank behind the prompt or before the text: the same tokens."""
    behind = by_text(model.score_segments(["the sky is "], ["blue", "red"]))
    before = by_text(model.score_segments(["the sky is"], [" blue", " red"]))
    assert list(behind.values()) == list(before.values())


def test_a_worker_gives_the_same() -> None:
    here = kosmos_edge.load(tiny_file(), threads=1)
    given = [picture(), "a", 255 - picture(), "it is "]
    with kosmos_edge.load(tiny_file(), threads=1, isolation="process") as apart:
        first = apart.encode(picture())
        for segments in (given, [first, "a", first, "it is "]):
            expected = given if segments is given else [picture(), "a", picture(), "it is "]
            got, wanted = apart.score_segments(segments, TEXTS), here.score_segments(expected, TEXTS)
            assert by_text(got) == by_text(wanted) and got.notes == wanted.notes
        with pytest.raises(InvalidRequest, match="normalize"):
            apart.score_segments(given, TEXTS, normalize="median")


def test_c_gives_the_same() -> None:
    path = tiny_file()
    python, c = kosmos_edge.load(path, threads=1), capi.load(path, threads=1)
    image, other = capi.encode(c, picture()), capi.encode(c, 255 - picture())
    segments = (capi.Segment * 4)(
        capi.Segment(kind=3, image=image),
        capi.Segment(kind=1, text=b"a"),
        capi.Segment(kind=3, image=other),
        capi.Segment(kind=1, text=b"it is "),
    )
    options = capi.ScoreOptions(normalize=2)
    arguments = (segments, c_size_t(4), texts(*TEXTS), c_size_t(len(TEXTS)))
    ranking = make("score_segments", c, *arguments, byref(options))
    expected = python.score_segments([picture(), "a", 255 - picture(), "it is "], TEXTS, normalize="characters")
    for rank, row in enumerate(expected.ranking):
        info = capi.ScoreInfo()
        call("ranking_get", ranking, c_size_t(rank), byref(info))
        assert (TEXTS[info.index], info.score, bool(info.greedy)) == (row.text, row.score, row.greedy)
        assert info.token_ids[: info.token_count] == row.token_ids
        assert info.logprobs[: info.token_count] == row.logprobs
    about = capi.RankingInfo()
    call("ranking_get_info", ranking, byref(about))
    assert (about.width, about.height) == (100, 80)
    capi.lib().kosmos_ranking_free(ranking)
    with pytest.raises(capi.CError, match="template_text"):
        make("score_segments", c, *arguments, byref(capi.ScoreOptions(template_text=b"{text}")))
    with pytest.raises(capi.CError, match=r"segments: expected .*, got 0"):
        make("score_segments", c, segments, c_size_t(0), texts("a"), c_size_t(1), None)
    for bad in (-1, 3):
        with pytest.raises(capi.CError, match=r"normalize: expected KOSMOS_NORMALIZE_\*, got"):
            make("score_segments", c, *arguments, byref(capi.ScoreOptions(normalize=bad)))


@pytest.mark.parametrize("segments", [[], "", 7, [None]])
def test_what_no_sequence_is(segments: object) -> None:
    with pytest.raises(InvalidRequest, match="segments"):
        kosmos_edge.load(tiny_file(), threads=1).score_segments(segments, ["a"])  # type: ignore[arg-type]
