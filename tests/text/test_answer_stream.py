"""An answer read as it grows: at every id the result of reading all ids so far, at a cost linear in its length."""

import random
import re

import pytest
from helpers.bpe_vocabularies import SpmBpe
from helpers.grounding_reference import reference_parse
from helpers.vocabularies import TAGS, Vocabulary, train
from test_grounding import SOUP, random_ids

from kosmos_edge import _core

testing = _core.testing


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return train(tmp_path_factory.mktemp("spm"))


@pytest.fixture(scope="module")
def literal() -> _core.Tokenizer:
    """A vocabulary whose ordinary pieces spell parts of tags, blanks, and a literal '<'."""
    parts = [*SOUP, *"<>/ob\n _", "<phr", "ase>", "ject>", "patch_index_00", "01>", "\u00a0", "▁", "▁a"]
    parts = list(dict.fromkeys(parts))
    types = [4 if re.fullmatch(r"<[^<>]+>", part) else 1 for part in parts]
    return _core.Tokenizer(["<unk>", *parts], [-1.0] * (len(parts) + 1), [2, *types], b"", 0)


@pytest.fixture(scope="module")
def bytewise() -> _core.Tokenizer:
    cells = [f"<patch_index_{i:04d}>" for i in range(16)]
    return SpmBpe(added=(*TAGS, *cells)).tokenizer()


def check_every_prefix(tokenizer: _core.Tokenizer, ids: list[int], bins: int) -> int:
    """Compares with reading the prefix anew, and with the rules written out; -> entities."""
    reader = testing.GroundedReader(tokenizer, bins)
    before = b""
    for n, token in enumerate(ids, 1):
        reader.push(token)
        grounded = reader.grounded
        assert grounded == testing.parse_grounded(tokenizer, ids[:n], bins)
        expected = reference_parse(tokenizer.decode(ids[:n]), bins)
        assert (grounded[0], [e[:3] for e in grounded[1]]) == (expected[0], [e[:3] for e in expected[1]])
        assert [e[3] for e in grounded[1]] == [e[4] for e in expected[1]]
        text = reader.text.encode()
        same = reader.unchanged()
        assert text[:same] == before[:same]
        assert reader.last_word == max(text.rfind(b" "), 0)
        assert reader.settled == (text.find(b"<") if b"<" in text else len(text))
        for at in (-1, 0, 1, len(reader.text) // 2, len(reader.text), len(reader.text) + 9):
            assert reader.byte_of(at) == len(reader.text[: max(at, 0)].encode())
        before = text
    return len(reader.grounded[1])


def test_every_prefix_of_answers_with_entities(vocabulary: Vocabulary) -> None:
    rng = random.Random(31)
    assert sum(check_every_prefix(vocabulary.tokenizer, random_ids(vocabulary, rng), 32) for _ in range(400)) > 300


@pytest.mark.parametrize("bins", [12, 32])
def test_every_prefix_of_tag_soup(literal: _core.Tokenizer, bins: int) -> None:
    rng = random.Random(32)
    found = 0
    for _ in range(2_000):
        ids = [rng.randrange(literal.size) for _ in range(rng.choice([3, 8, 20, 40]))]
        found += check_every_prefix(literal, ids, bins)
    assert found > 100


def test_every_prefix_where_pieces_are_bytes(bytewise: _core.Tokenizer) -> None:
    rng = random.Random(33)
    smile = [bytewise.find(f"<0x{b:02X}>") for b in "🙂".encode()]
    box = [bytewise.find(t) for t in ("<object>", "<patch_index_0001>", "<patch_index_0009>", "</object>")]
    phrase = [bytewise.find("<phrase>"), *smile, bytewise.find("ba"), bytewise.find("</phrase>")]
    assert min(*smile, *box, *phrase) >= 0
    found = 0
    for _ in range(600):
        ids: list[int] = []
        for _ in range(rng.randint(1, 5)):
            ids += rng.choice([smile, smile[:2], phrase + box, box, [rng.randrange(bytewise.size)]])
        found += check_every_prefix(bytewise, ids, 4)
    assert found > 300
    reader = testing.GroundedReader(bytewise, 4)
    for token in phrase + box:
        reader.push(token)
    assert reader.grounded == ("🙂ba", [("🙂ba", 0, 3, [(1, 9)], [(8, 9)], (1, 6))])


def test_bytes_of_an_unfinished_character_are_no_text_yet(bytewise: _core.Tokenizer) -> None:
    reader = testing.GroundedReader(bytewise, 4)
    smile = [bytewise.find(f"<0x{b:02X}>") for b in "🙂".encode()]
    reader.push(bytewise.find("ba"))
    for token in smile[:3]:
        reader.push(token)
    assert reader.text == "ba" and reader.grounded[0] == "ba\ufffd\ufffd\ufffd"
    reader.push(smile[3])
    reader.finish()
    assert reader.text == "ba🙂"


def test_without_location_tokens_all_is_text(literal: _core.Tokenizer) -> None:
    rng = random.Random(34)
    for _ in range(300):
        ids = [rng.randrange(literal.size) for _ in range(rng.randint(0, 20))]
        reader = testing.GroundedReader(literal, 0)
        for token in ids:
            reader.push(token)
        assert reader.grounded == (literal.decode(ids).strip(), [])
        assert reader.settled == len(reader.text.encode())


@pytest.mark.parametrize("kind", ["literal", "bytewise"])
def test_events_add_up_to_the_answer(kind: str, request: pytest.FixtureRequest) -> None:
    """Texts and entities, with and without stop texts, which are found at the first id that completes one."""
    tokenizer, rng, stopped = request.getfixturevalue(kind), random.Random(35), 0
    for _ in range(1_500):
        ids = [rng.randrange(tokenizer.size) for _ in range(rng.randint(1, 30))]
        kept = [rng.randrange(tokenizer.size) for _ in range(rng.choice([0, 0, 3]))]
        stop = rng.sample(["a", "og", "< y", "dog a", "é日", "ba", "x"], rng.randint(0, 2))
        stream = testing.answer_stream(tokenizer, 4, kept, stop)
        prompt = len(_core.parse_grounded(tokenizer, kept, 4)[0])
        texts, entities, read = "", 0, []
        for token in ids:
            read.append(token)
            met = stream.push(token, -1.0)
            reader = testing.GroundedReader(tokenizer, 4)
            for t in kept + read:
                reader.push(t)
            assert met == any(word in reader.text[prompt:] for word in stop)
            if met:
                stopped += 1
                break
            for event in stream.events():
                texts, entities = (texts + event, entities) if isinstance(event, str) else (texts, entities + 1)
        text, found = testing.read_answer(tokenizer, 4, kept, read, [-1.0] * len(read), stop)
        for event in testing.finish_stream(stream, tokenizer, 4, kept, read, [-1.0] * len(read), stop):
            texts, entities = (texts + event, entities) if isinstance(event, str) else (texts, entities + 1)
        assert (texts, entities) == (text, len(found))
    assert stopped > 100


def test_a_stop_text_is_found_when_it_is_complete(literal: _core.Tokenizer) -> None:
    rng = random.Random(36)
    for _ in range(1_000):
        stop = rng.sample(["a", " dog", "<p", "x < y", "é", "ob"], rng.randint(1, 3))
        finder, ids = testing.StopFinder(literal, stop), []
        for _ in range(20):
            ids.append(rng.randrange(literal.size))
            text = literal.decode(ids)
            found = finder.push(ids[-1])
            assert found == next((word for word in stop if word in text), None)
            if found is not None:
                break


def test_the_cost_of_a_long_answer_is_linear(vocabulary: Vocabulary) -> None:
    """Counted in decoded pieces: as many per token of a page as of a caption."""
    rng = random.Random(37)
    ids: list[int] = []
    while len(ids) < 4_000:
        ids += random_ids(vocabulary, rng)
    events, growing, whole = testing.stream_cost(vocabulary.tokenizer, 32, ids[:4_000], ["zzzz", "qqqq"])
    few_events, few, _ = testing.stream_cost(vocabulary.tokenizer, 32, ids[:200], ["zzzz", "qqqq"])
    assert events > 1_000 and few_events > 20
    assert growing <= 5 * 4_000 and whole <= 9 * 4_000
    assert growing / 4_000 <= 1.1 * few / 200
