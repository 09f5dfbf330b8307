"""The numpy reference reproduces what transformers gave for the tiny model: answers, logits, image embeddings."""

import numpy as np
import pytest
from helpers.golden_cases import CASES, load_arrays, load_json, relative_error, weights_digest
from helpers.reference import Prompt, Reference, banned_tokens, log_softmax
from helpers.tiny import make_picture, make_tiny, write_tiny
from PIL import Image

# Both sides compute in float32. Against float64 each is off by up to 8e-6 of the largest logit (measured over seeds;
# unit roundoff 6e-8 times sharp attention in two layers), so two of them may be 1.6e-5 apart; picture vectors 1e-6.
LOGITS, EMBEDDING = 3e-5, 5e-6

TINY = make_tiny(seed=0)
REFERENCE = Reference(TINY.metadata, TINY.weights)
ANSWERS = load_json("answers")
ARRAYS = load_arrays()


def prompt_of(record: dict) -> Prompt:
    """The prompt of a golden: its ids, and the pictures' vectors where the slots are."""
    images = iter([REFERENCE.encode_image(make_picture(*p)) for p in record["pictures"]])
    segments, ids = [], record["prompt_ids"][1:]
    while REFERENCE.image_begin in ids:
        at = ids.index(REFERENCE.image_begin)
        segments += [ids[:at], next(images)]
        ids = ids[at + REFERENCE.latents + 2 :]
    return REFERENCE.prompt([*segments, ids])


def test_the_weights_are_those_of_the_goldens() -> None:
    """The seeded generator gives the same bits here as where the goldens were made."""
    assert weights_digest(TINY) == ANSWERS["weights_sha256"]


def test_every_case_is_recorded() -> None:
    """A case added to golden_cases.py must be recorded with make_goldens.py."""
    assert [r["name"] for r in ANSWERS["cases"]] == [c.name for c in CASES]
    answers = [r for r in ANSWERS["cases"] if len(r["ids"]) >= 64]
    assert len(answers) >= 20
    assert all(r["margin"] > 5e-4 for r in ANSWERS["cases"])


@pytest.mark.parametrize("record", ANSWERS["cases"], ids=lambda r: r["name"])
def test_answers(record: dict) -> None:
    """Prompt ids, generated ids, log-probabilities, beam scores and logits of the whole sequence."""
    prompt = prompt_of(record)
    assert prompt.ids == record["prompt_ids"]
    if record["beams"] == 1:
        answer = REFERENCE.generate(prompt, record["max_tokens"], record["ngram"])
    else:
        beams, penalty = record["beams"], record["length_penalty"]
        answer = REFERENCE.beam_search(prompt, beams, record["max_tokens"], penalty, record["ngram"])
        assert answer.score == pytest.approx(record["score"], rel=1e-4)
    assert answer.ids == record["ids"]
    logits = REFERENCE.logits(Prompt(prompt.ids + answer.ids[:-1], prompt.vectors))
    scale = np.abs(logits).max()
    assert np.abs(np.array(answer.logprobs) - record["logprobs"]).max() < 2 * LOGITS * scale + 1e-4
    assert relative_error(logits[record["logit_rows"]], ARRAYS[f"logits/{record['name']}"]) < LOGITS


def test_image_embeddings() -> None:
    """Picture vectors equal transformers'."""
    names = [n for n in ARRAYS if n.startswith("embedding/")]
    assert len(names) == 5
    for name in names:
        _, seed, size = name.split("/")
        width, height = (int(v) for v in size.split("x"))
        got = REFERENCE.encode_image(make_picture(int(seed), width, height))
        assert relative_error(got, ARRAYS[name]) < EMBEDDING, name


def test_pillow_still_resizes_alike() -> None:
    """The Pillow here resizes as the Pillow that made the goldens: to the bit."""
    for name in (n for n in ARRAYS if n.startswith("resize/")):
        _, seed, size, side = name.split("/")
        width, height = (int(v) for v in size.split("x"))
        picture = Image.fromarray(make_picture(int(seed), width, height))
        resized = picture.resize((int(side), int(side)), Image.Resampling.BICUBIC)
        assert np.array_equal(np.asarray(resized), ARRAYS[name]), name


def test_a_picture_changes_the_answer() -> None:
    """The goldens would not notice a picture that nothing looks at: make sure that the model does."""
    tail = [TINY.vocabulary.id("▁image")]
    one, two = (REFERENCE.prompt([REFERENCE.encode_image(make_picture(s, 60, 60)), tail]) for s in (1, 2))
    assert relative_error(REFERENCE.logits(one)[-1], REFERENCE.logits(two)[-1]) > 0.1


def test_step_by_step_equals_all_at_once() -> None:
    """The cache: feeding one token after another gives the logits of one pass."""
    prompt = REFERENCE.prompt([REFERENCE.encode_image(make_picture(3, 60, 60)), [5, 6, 7, 300]])
    whole = REFERENCE.logits(prompt)
    state, rows = REFERENCE.start(), []
    for i, token in enumerate(prompt.ids):
        row, state = REFERENCE.forward(state, [token], {i: prompt.vectors[i]} if i in prompt.vectors else {})
        rows.append(row[0])
    assert relative_error(np.stack(rows), whole) < LOGITS


def test_score_is_the_log_probability_of_the_answer() -> None:
    """Teacher forcing a generated answer gives the log-probabilities of its generation."""
    prompt = REFERENCE.prompt([[5, 6, 300]])
    answer = REFERENCE.generate(prompt, 16)
    assert np.allclose(REFERENCE.score(prompt, answer.ids), answer.logprobs, atol=1e-3)
    assert np.isclose(np.exp(log_softmax(answer.logits[0])).sum(), 1)


def test_banned_tokens() -> None:
    """The n-gram rule on sequences short enough to check by eye."""
    assert banned_tokens([7, 8, 9, 7, 8], 3) == {9}
    assert banned_tokens([7, 8, 9, 7, 8], 2) == {9}
    assert banned_tokens([7, 8, 7], 1) == {7, 8}
    assert banned_tokens([7, 8, 9, 7, 8], 0) == set()
    assert banned_tokens([7], 3) == set()
    assert banned_tokens([4, 5, 6, 4, 5], 3) == {6}  # the placeholder ids of picture slots count


def test_the_file_holds_the_model(tmp_path) -> None:
    """What write_tiny writes, the gguf package reads back to the same reference."""
    write_tiny(tmp_path / "tiny.gguf", seed=4)
    reference = Reference.from_gguf(str(tmp_path / "tiny.gguf"))
    fresh = make_tiny(seed=4)
    assert reference.weights.keys() == fresh.weights.keys()
    assert all(np.array_equal(reference.weights[n], w) for n, w in fresh.weights.items())
    assert reference.metadata["kosmos2.vocab_size"] == len(fresh.vocabulary.pieces)
