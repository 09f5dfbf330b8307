"""n-gram block, location grammar, choices and sampling, each against a plain definition in Python."""

import math
import random
import re

import numpy as np
import pytest

from kosmos_edge import _core

T = _core.testing
NEG = float("-inf")

# A toy vocabulary: 0..9 text (2 is </s>), 10..14 tags, 20..35 a 4 x 4 grid of cells.
EOS, PHRASE, PHRASE_END, OBJECT, OBJECT_END, DELIMITER, CELL, BINS, VOCAB = 2, 10, 11, 12, 13, 14, 20, 4, 40


def grammar(*ids):
    g = T.location_grammar(first_tag=PHRASE, first_location=CELL, bins=BINS, eos=EOS)
    for i in ids:
        g.accept(i)
    return g


def banned_by_ngrams(sequence, n):
    """Every token that would complete an n-gram that is already in the sequence."""
    grams = {tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)}
    return {g[-1] for g in grams if list(g[:-1]) == (sequence[len(sequence) - n + 1 :] if n > 1 else [])}


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_ngram_block_equals_its_definition(n):
    rng = random.Random(n)
    for _ in range(300):
        sequence = [rng.randrange(4) for _ in range(rng.randrange(0, 30))]
        scores = T.apply_rules([float(i) for i in range(8)], sequence, n)
        assert {i for i, s in enumerate(scores) if s == NEG} == banned_by_ngrams(sequence, n)


def test_ngram_block_keeps_something_when_only_repeats_are_left():
    g = grammar(PHRASE, 5, PHRASE_END, OBJECT, CELL, CELL)
    sequence = [CELL, OBJECT_END, CELL, DELIMITER, 7, CELL]  # both ways on from a pair are bigrams already seen
    scores = T.apply_rules([0.0] * VOCAB, sequence, 2, g)
    assert [i for i, s in enumerate(scores) if s > NEG] == [OBJECT_END, DELIMITER]


def test_some_tokens_never_come():
    """Beside the n-gram block and a list of choices, in any order."""
    rng = random.Random(5)
    for n in (0, 1, 2, 3):
        for _ in range(100):
            sequence = [rng.randrange(4) for _ in range(rng.randrange(0, 30))]
            never = rng.sample(range(10), rng.randrange(4))
            scores = T.apply_rules([float(i) for i in range(10)], sequence, n, never=never)
            repeats = banned_by_ngrams(sequence, n) if n else set()
            assert {i for i, s in enumerate(scores) if s == NEG} == repeats | set(never)
    choice = T.one_of([[3], [5], [7]], EOS)
    scores = T.apply_rules([0.0] * 10, [], 0, choice, never=[5, 8])
    assert [i for i, s in enumerate(scores) if s > NEG] == [3, 7]


CELLS = set(range(CELL, CELL + BINS * BINS))


def test_grammar_in_text():
    assert set(range(VOCAB)) - set(grammar().allowed(VOCAB)) == CELLS | {PHRASE_END, OBJECT, OBJECT_END, DELIMITER}
    assert set(range(VOCAB)) - set(grammar(PHRASE, 5, PHRASE_END).allowed(VOCAB)) == CELLS | {
        PHRASE_END,
        OBJECT_END,
        DELIMITER,
    }


def test_grammar_in_phrase():
    empty = set(grammar(PHRASE).allowed(VOCAB))
    some = set(grammar(PHRASE, 5).allowed(VOCAB))
    assert some - empty == {PHRASE_END}
    assert set(range(VOCAB)) - some == CELLS | {PHRASE, OBJECT, OBJECT_END, DELIMITER, EOS}


def test_grammar_in_object():
    assert set(grammar(PHRASE, 5, PHRASE_END, OBJECT).allowed(VOCAB)) == CELLS
    x, y = 1, 2
    second = set(grammar(PHRASE, 5, PHRASE_END, OBJECT, CELL + y * BINS + x).allowed(VOCAB))
    assert second == {CELL + j * BINS + i for j in range(y, BINS) for i in range(x, BINS)}
    pair = grammar(PHRASE, 5, PHRASE_END, OBJECT, CELL, CELL + 5)
    assert set(pair.allowed(VOCAB)) == {OBJECT_END, DELIMITER}
    pair.accept(DELIMITER)
    assert set(pair.allowed(VOCAB)) == CELLS


def test_grammar_makes_any_walk_well_formed():
    rng = random.Random(7)
    for _ in range(200):
        g, ids = grammar(), []
        for _ in range(60):
            ids.append(rng.choice(g.allowed(VOCAB)))
            g.accept(ids[-1])
        names = {PHRASE: "P", PHRASE_END: "p", OBJECT: "O", OBJECT_END: "o", DELIMITER: ","}
        text = "".join("c" if i in CELLS else names.get(i, "t") for i in ids)
        whole = r"(?:t|Pt+p(?:O(?:cc,)*cco)?)*"
        tail = r"(?:Pt*|Pt+pO(?:cc,)*c?c?)?"
        assert re.fullmatch(whole + tail, text), text


def test_choices():
    c = T.one_of([[3, 4], [3, 4, 5], [6]], eos=EOS)
    assert c.allowed(VOCAB) == [3, 6]
    c.accept(3)
    assert c.allowed(VOCAB) == [4] and not c.complete
    c.accept(4)
    assert c.allowed(VOCAB) == [EOS, 5] and not c.complete
    c.accept(5)
    assert c.complete
    early = T.one_of([[3], [3, 4]], eos=EOS)
    early.accept(3)
    early.accept(EOS)
    assert early.complete


def softmax(scores, temperature):
    top = max(scores)
    e = [math.exp((s - top) / temperature) for s in scores]
    return [x / sum(e) for x in e]


def test_sampling_follows_the_distribution():
    scores, temperature, n = [1.0, 0.5, 0.0, -1.0, NEG], 0.7, 40000
    ids = T.sample(scores, temperature, 0, 1.0, 3, n)
    for i, p in enumerate(softmax(scores, temperature)):
        # five standard deviations of a binomial count
        assert abs(ids.count(i) - n * p) <= 5 * math.sqrt(n * p * (1 - p)) + 1e-9


def test_top_k_and_top_p_keep_the_right_tokens():
    scores = [0.0, 3.0, 1.0, 2.0]
    assert set(T.sample(scores, 2.0, 2, 1.0, 0, 2000)) == {1, 3}
    p = sorted(softmax(scores, 1.0), reverse=True)
    assert set(T.sample(scores, 1.0, 0, p[0] + 0.5 * p[1], 0, 2000)) == {1, 3}
    assert set(T.sample(scores, 1.0, 0, p[0] * 0.9, 0, 200)) == {1}
    assert T.sample([1.0, 5.0, 5.0], 0.0, 0, 1.0, 0, 3) == [1, 1, 1]


SMALLEST = [1e-6, 1e-30, 1.2e-38, 5e-39, 2.9e-39, 1e-39, 1e-42, 1e-45, 1e-46, 1e-300]  # some are denormal as floats


@pytest.mark.parametrize("temperature", SMALLEST)
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.9), (3, 0.5), (10**9, 1e-45)])
def test_the_smallest_temperatures_are_greedy(temperature, top_k, top_p):
    """Near scores and far ones, scores that may not come; among equals of the highest any may be drawn."""
    for scores in ([0.0, 3.0, 2.999, -50.0], [NEG, -1e38, -2.0, NEG, -2.5], [7.0] + [6.9] * 600):
        assert set(T.sample(scores, temperature, top_k, top_p, 1, 50)) == {int(np.argmax(scores))}
    assert set(T.sample([5.0, 1.0, 5.0], temperature, 0, 1.0, 1, 200)) <= {0, 2}


@pytest.mark.parametrize("top_p", [1e-7, 1e-38, 1e-45])
def test_the_smallest_top_p_keeps_the_best(top_p):
    assert set(T.sample([0.0, 0.1, 0.05], 100.0, 0, top_p, 0, 200)) == {1}


def test_top_p_above_0_stays_above_0_as_a_float():
    params = _core.GenerateParams()
    for given, held in [(1e-46, 2.0**-149), (1e-300, 2.0**-149), (0.5, 0.5), (1.0, 1.0), (0.0, 0.0)]:
        params.top_p = given
        assert params.top_p == held


def test_same_seed_same_ids():
    scores = [0.1 * i for i in range(50)]
    assert T.sample(scores, 1.0, 0, 1.0, 11, 50) == T.sample(scores, 1.0, 0, 1.0, 11, 50)
    assert T.sample(scores, 1.0, 0, 1.0, 11, 50) != T.sample(scores, 1.0, 0, 1.0, 12, 50)


def test_log_probability():
    scores = [0.3, -2.0, 5.0, 4.0]
    expected = scores[1] - math.log(sum(math.exp(s) for s in scores))
    assert T.log_probability(scores, 1) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [1, 7, 8, 31, 511, 512, 513, 65037])
def test_passes_over_a_vocabulary_of_any_size(size):
    """Highest score, its first place and ln p against float64, wherever the highest is and however far the others."""
    rng = np.random.default_rng(size)
    for width in (0.01, 3, 200):
        scores = (rng.standard_normal(size) * width).astype(np.float32)
        for place in {0, size // 2, size - 1}:
            scores[place] = np.abs(scores).max() + 1
            again = np.append(scores, scores[place])  # an equal one behind it
            assert T.sample(again.tolist(), 0.0, 0, 1.0, 0, 1) == [int(np.argmax(scores))]
            exact = scores.astype(np.float64)
            low = int(exact.argmin())
            for token in (place, low):
                want = exact[token] - exact.max() - np.log(np.sum(np.exp(exact - exact.max())))
                assert T.log_probability(scores.tolist(), token) == pytest.approx(want, abs=2e-6, rel=1e-6)
            scores[place] = 0


@pytest.mark.parametrize(("width", "temperature"), [(3, 1.0), (8, 0.7), (1, 2.0)])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("top_k", [0, 40])
def test_sampling_keeps_the_tokens_of_the_definition(width, temperature, top_p, top_k):
    """Peaked and flat scores of 3000 tokens, some of which may not come at all."""
    rng = np.random.default_rng(7)
    scores = (rng.standard_normal(3000) * width).astype(np.float32)
    scores[rng.permutation(3000)[:100]] = NEG
    order = np.argsort(-scores, kind="stable")[: top_k or None]
    p = np.exp((scores[order].astype(np.float64) - scores.max()) / temperature)
    p /= p.sum()
    kept = int(np.searchsorted(np.cumsum(p), top_p)) + 1
    ids = T.sample(scores.tolist(), temperature, top_k, top_p, 5, 400)
    assert set(ids) <= set(order[: kept + 1].tolist())  # one more where the sum falls on the border
    mean = np.mean([np.flatnonzero(order == i)[0] for i in ids])
    q = p[:kept] / p[:kept].sum()
    places = np.arange(kept)
    expected, deviation = q @ places, np.sqrt(max(q @ places**2 - (q @ places) ** 2, 0) / len(ids))
    assert abs(mean - expected) <= 5 * deviation + 1e-6


def test_repetition_penalty_equals_its_definition():
    """Of transformers' RepetitionPenaltyLogitsProcessor: each token of the sequence once, whatever its sign."""
    rng = random.Random(11)
    for penalty in (0.125, 0.7, 1.0, 1.3, 1.5, 100.0):
        for _ in range(50):
            scores = np.array([rng.uniform(-5, 5) for _ in range(20)] + [0.0], np.float32)
            sequence = [rng.randrange(21) for _ in range(rng.randrange(0, 30))]
            expected = scores.copy()
            for i in set(sequence):
                p = np.float32(penalty)
                expected[i] = scores[i] * p if scores[i] < 0 else scores[i] / p
            assert T.penalize(scores.tolist(), sequence, penalty) == expected.tolist()
    assert T.penalize([3e38, -3e38], [0, 1], 0.125)[0] == np.finfo(np.float32).max.item()  # not infinite
    assert T.penalize([NEG, 1.0], [0, 0, 0], 2.0) == [NEG, 1.0]  # what may not come does not
