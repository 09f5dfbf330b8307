"""A converted KOSMOS-2.5 checkpoint gives the image rows, logits and ids of transformers'
Kosmos2_5ForConditionalGeneration in float32, end to end: picture to answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.golden_cases import relative_error
from helpers.kosmos2_5_checkpoint import PageVocabulary, State, random_state, write_hf
from helpers.tiny import make_picture

from kosmos_edge import _core
from kosmos_edge.convert import convert

LENGTH = 64
TOLERANCE = 1e-4  # of the largest magnitude in each row
PRESETS: dict[str, dict[str, int]] = {
    "tiny": {},
    # Heads of 96 values, as published, and an encoder whose second feed-forward matrix has rows of no whole K-block.
    "small": {
        "width": 192, "ff": 320, "layers": 3, "heads": 2, "latents": 24, "vision": 128, "vision_ff": 352,
        "vision_layers": 3, "vision_heads": 2, "patch": 8, "max_patches": 100, "positions": 256,
    },
}  # fmt: skip
# As many rows as published, so that an answer has positions beyond 2,100, and beyond config.json's.
LONG = {"latents": 2048, "positions": 2048, "max_patches": 24}
# (width, height): 12:1 to 1:12; most are enlarged, the last but one and (900, 640) shrink.
SIZES = [(240, 20), (96, 48), (61, 53), (900, 640), (300, 900), (20, 240)]
PROMPTS = ("<ocr>", "<md>")


def endless(state: State) -> State:
    """With an end of answers that is never the likeliest token."""
    name = "text_model.model.embed_tokens.weight"
    shape, data = state[name]
    row = 4 * shape[1]
    return state | {name: (shape, data[: 2 * row] + bytes(row) + data[3 * row :])}


class Pair:
    """The same random checkpoint in transformers and converted."""

    def __init__(self, folder: Path, seed: int, sizes: dict[str, int]) -> None:
        from helpers.hf_page import HfPage

        vocabulary = PageVocabulary()
        state = endless(random_state(len(vocabulary.pieces), seed, **sizes))
        self.folder = write_hf(folder / "hf", vocabulary, state, **sizes)
        self.hf = HfPage(self.folder)
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.engine = _core.Engine(str(self.path), threads=1)

    def encode(self, picture: np.ndarray) -> _core.ImageEmbedding:
        height, width, _ = picture.shape
        return self.engine.encode_image(picture.tobytes(), width, height)

    def generate(self, image: _core.ImageEmbedding, words: str, tokens: int, ngram: int) -> _core.Generation:
        params = _core.GenerateParams()
        params.max_tokens, params.no_repeat_ngram_size = tokens, ngram
        return self.engine.generate([("image", image), ("tags", words)], params)

    def logits(self, image: _core.ImageEmbedding, words: str, answer: list[int]) -> np.ndarray:
        data, rows, vocab = self.engine.logits([("image", image), ("tags", words), ("ids", answer)])
        return np.frombuffer(data, np.float32).reshape(rows, vocab)


@pytest.fixture(scope="module", params=[(name, seed) for name in PRESETS for seed in (0, 1)], ids=str)
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: Any) -> Iterator[Pair]:
    name, seed = request.param
    yield Pair(tmp_path_factory.mktemp("kosmos2_5"), seed, PRESETS[name])


@pytest.mark.parametrize("number", range(len(SIZES)), ids=[f"{w}x{h}" for w, h in SIZES])
def test_pages_of_every_aspect(pair: Pair, number: int) -> None:
    """Image rows, greedy ids, and the logits of every position of the prompt and the answer."""
    picture, words = make_picture(number, *SIZES[number]), PROMPTS[number % 2]
    image = pair.encode(picture)
    rows = np.frombuffer(image.tobytes(), np.float32).reshape(image.shape)
    assert relative_error(rows, pair.hf.encode_image(picture)) <= TOLERANCE
    expected = pair.hf.generate(picture, words, LENGTH, no_repeat_ngram_size=0)
    found = pair.generate(image, words, LENGTH, ngram=0)
    assert found.prompt_ids == pair.hf.prompt(words)["input_ids"][0].tolist()
    assert list(found.token_ids) == expected and len(expected) == LENGTH
    wanted = pair.hf.logits(picture, words, expected)
    assert relative_error(pair.logits(image, words, expected), wanted) <= TOLERANCE


@pytest.mark.parametrize("words", [*PROMPTS, "<md>USER: what is this? ASSISTANT:"])
def test_prompts_with_and_without_the_rule_against_repeats(pair: Pair, words: str) -> None:
    """generate() takes the rule of 3 from generation_config.json; it sees the placeholders, which are all one id."""
    picture = make_picture(9, 120, 80)
    image, seen = pair.encode(picture), set()
    answers = {}
    for ngram, options in ((0, {"no_repeat_ngram_size": 0}), (3, {})):
        expected = pair.hf.generate(picture, words, LENGTH, **options)
        assert list(pair.generate(image, words, LENGTH, ngram).token_ids) == expected and len(expected) == LENGTH
        seen |= set(expected)
        answers[ngram] = expected
    assert len(set(answers[3])) > LENGTH // 4 and answers[0] != answers[3]


def test_answers_differ_by_picture_and_prompt(pair: Pair) -> None:
    """Or the comparisons above would see little."""
    answers, used = set(), set()
    for number in range(3):
        image = pair.encode(make_picture(number, 120, 80))
        for words in PROMPTS:
            ids = tuple(pair.generate(image, words, 24, ngram=0).token_ids)
            answers.add(ids)
            used |= set(ids)
    assert len(answers) == 6 and len(used) > 24


def test_a_rule_of_one_bans_placeholders(pair: Pair) -> None:
    """Every id of the prompt, <s> of the rows, too."""
    picture = make_picture(9, 120, 80)
    expected = pair.hf.generate(picture, "<ocr>", 16, no_repeat_ngram_size=1)
    found = list(pair.generate(pair.encode(picture), "<ocr>", 16, ngram=1).token_ids)
    assert found == expected and len(set(found)) == 16 and 0 not in found


def test_positions_of_long_answers(transformers_here: None, tmp_path: Path) -> None:
    """2,052 tokens of prompt and an answer; the table of positions grows beyond config.json's number."""
    pair = Pair(tmp_path, 2, LONG)
    picture = make_picture(5, 100, 70)
    image = pair.encode(picture)
    expected = pair.hf.generate(picture, "<ocr>", LENGTH, no_repeat_ngram_size=3)
    found = pair.generate(image, "<ocr>", LENGTH, ngram=3)
    assert len(found.prompt_ids) == 2052 and len(found.prompt_ids) + len(expected) > 2100
    assert list(found.token_ids) == expected and len(set(expected)) > LENGTH // 4
    got, want = pair.logits(image, "<ocr>", expected), pair.hf.logits(picture, "<ocr>", expected)
    assert relative_error(got, want) <= TOLERANCE
