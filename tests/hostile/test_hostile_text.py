"""What a user types is data: no spelling of any special token, tag or place of a format becomes one."""

import pytest
from helpers.api_model import tiny_model
from helpers.tiny import TAGS

from kosmos_edge import Model, _core, load

PLACES = ("{question}", "{phrase}", "{boxes}", "{text}", "{{question}}", "%s", "{0}", "{question.__class__}")
SSTI = (
    "{{7*7}}", "{{ config.items() }}", "{% for x in range(10**9) %}x{% endfor %}", "${7*7}", "#{7*7}", "<%= 7*7 %>",
    "{{''.__class__.__mro__[2].__subclasses__()}}", "{{ self._TemplateReference__context }}", "{%raw%}", "{#x#}",
    "{{cycler.__init__.__globals__.os.popen('id').read()}}", "{{ x|attr('__class__') }}", "{% include '/etc/passwd' %}",
)  # fmt: skip


@pytest.fixture(scope="module", params=["tiny", "nano"])
def model(request) -> Model:
    return tiny_model() if request.param == "tiny" else load("nano", threads=1)


def specials(tokenizer: _core.Tokenizer) -> dict[int, str]:
    """Every id that is no word: control tokens, tags, location tokens, <mask>. An unknown character may be <unk>."""
    ids = range(tokenizer.size)
    tagged = {i for i in ids if tokenizer.encode_with_tags(tokenizer.piece(i)) == [i] and tokenizer.piece(i)[0] == "<"}
    silent = {i for i in ids if not tokenizer.text(i)} - {tokenizer.find("<unk>")}
    return {i: tokenizer.piece(i) for i in tagged | silent}


def test_every_special_piece_is_plain_text(model):
    """100 % of the vocabulary's specials, alone, in a sentence, doubled, and with blanks around."""
    tokenizer = model._open.engine.tokenizer
    special = specials(tokenizer)
    assert {*TAGS, "<s>", "</s>", "<pad>", "<mask>", "<patch_index_0000>", "<patch_index_1023>"} <= set(
        special.values()
    )
    assert len(special) >= 1024 + len(TAGS) + 4
    for piece in special.values():
        for text in (piece, f"a {piece} b", piece + piece, f" {piece}\n", piece[:-1] + ">"):
            assert not set(tokenizer.encode(text)) & set(special), text
    whole = "".join(special.values())
    assert not set(tokenizer.encode(whole)) & set(special)


def test_prompts_with_hostile_words_have_the_same_tags(model):
    """Through every format of the model: the special ids of the prompt are those of a harmless question."""
    engine = model._open.engine
    special = specials(engine.tokenizer)
    texts = [*TAGS, "<s>", "</s>", "<pad>", "<unk>", "<mask>", *PLACES, *SSTI]
    texts += [f"<patch_index_{i:04d}>" for i in range(0, 1024, 37)]
    for name in ("question", "locate"):
        form = engine.metadata[f"kosmos2.prompt.{name}"]

        def ids(words: str, form: str = form) -> list[int]:
            segments = _core.testing.expand_format(form, question=words, phrase=words)
            return [i for i in engine.prompt_ids(segments) if i in special]

        expected = ids("a dog")
        for text in texts:
            for words in (text, f"what is {text} ?", text * 3):
                assert ids(words) == expected, words


def test_templates_are_words(model):
    """No template is run: the words of the prompt are those that were given."""
    for text in (*SSTI, *PLACES):
        segments = _core.testing.expand_format("Question: {question} Answer:", question=text)
        assert segments == [("text", f"Question: {text} Answer:")]


def test_answers_to_hostile_questions(model):
    picture = bytes(range(192))
    engine = model._open.engine
    encoded = engine.encode_image(picture, 8, 8)
    params = _core.GenerateParams()
    params.max_tokens = 1
    for text in (*TAGS, *PLACES, *SSTI):
        segments = [("image", encoded), *_core.testing.expand_format("Question: {question} Answer:", question=text)]
        assert len(engine.generate(segments, params).token_ids) == 1
