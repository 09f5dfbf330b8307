"""CLIP's words: equal to the tokenizers library with the pipeline of transformers' CLIPTokenizer."""

import json
import random
import unicodedata

import pytest
from helpers.bpe_vocabularies import random_texts, sentences
from helpers.words_bpe import CUT, END_TOKEN, WordsBpe

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

HAND = WordsBpe(["cat", "cats", "dog", "the", "a", "of"])


def engine_of(words: WordsBpe) -> _core.Tokenizer:
    return _core.Tokenizer.byte_bpe(words.pieces, words.types, words.merges, "clip")


def test_by_hand() -> None:
    """Small letters, blanks that only part words, ends of words, contractions, numbers digit by digit."""
    tokenizer = engine_of(HAND)
    pieces = [HAND.pieces[i] for i in tokenizer.encode(" The  CATS\n12 dog's ca!! ")]
    assert pieces == ["the</w>", "cats</w>", "1</w>", "2</w>", "dog</w>", "'", "s</w>", "c", "a</w>", "!", "!</w>"]
    assert tokenizer.decode(tokenizer.encode("The CATS, 12 dogs")) == "the cats , 1 2 dogs "
    assert tokenizer.encode("") == tokenizer.encode(" \n ") == []


def test_a_byte_that_ends_no_word_is_refused() -> None:
    pieces, types = list(HAND.pieces), list(HAND.types)
    types[pieces.index("b</w>")] = 5
    with pytest.raises(ModelCorrupt, match="no normal piece is the byte 98 and </w>"):
        _core.Tokenizer.byte_bpe(pieces, types, HAND.merges, "clip")


@pytest.fixture(scope="module")
def pair():
    """(ours, theirs): trained here, cut and changed as CLIPTokenizer does."""
    tokenizers = pytest.importorskip("tokenizers", reason="the reference is the tokenizers library")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    reference = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END_TOKEN))
    steps = [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    reference.normalizer = normalizers.Sequence(steps)
    split = pre_tokenizers.Split(tokenizers.Regex(CUT), behavior="removed", invert=True)
    reference.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    reference.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1400, initial_alphabet=letters, special_tokens=["<|startoftext|>", END_TOKEN],
        end_of_word_suffix="</w>", show_progress=False,
    )  # fmt: skip
    reference.train_from_iterator(sentences(7), trainer)
    state = json.loads(reference.to_str())
    vocab = state["model"]["vocab"]
    for letter in letters:  # the trainer keeps those that it saw alone
        for piece in (letter, letter + "</w>"):
            vocab.setdefault(piece, len(vocab))
    reference = tokenizers.Tokenizer.from_str(json.dumps(state))
    pieces = sorted(vocab, key=vocab.__getitem__)
    types = [3 if piece in ("<|startoftext|>", END_TOKEN) else 1 for piece in pieces]
    merges = [m if isinstance(m, str) else " ".join(m) for m in state["model"]["merges"]]
    return _core.Tokenizer.byte_bpe(pieces, types, merges, "clip"), reference


def known(text: str) -> bool:
    """Whether its characters are assigned in Python's Unicode, and no special token is in it."""
    return "<|" not in text and all(unicodedata.category(c) != "Cn" for c in text)


def test_ids_of_random_texts(pair) -> None:
    """24,000 of them."""
    ours, theirs = pair
    readable = [ours.text(i) for i in range(ours.size) if ours.type(i) == 1]
    texts = [text for seed in range(3) for text in random_texts(readable, 8_000, seed=seed) if known(text)]
    rng = random.Random(4)
    pool = "aAbBéÉßẞΣσςİıÅÅ'’.,!? \t\n\u00a0\u3000  0129٣½中文🙂🙂ﬃ\u0301\u0327ÑñДд" + "'s't're've'm'll'd"
    texts += ["".join(rng.choice(pool) for _ in range(rng.randint(1, 24))) for _ in range(8_000)]
    assert len(texts) > 20_000
    wrong = [text for text in texts if ours.encode(text) != theirs.encode(text, add_special_tokens=False).ids]
    assert wrong == []


def test_every_character_is_made_small_and_cut_as_the_library_does(pair) -> None:
    ours, theirs = pair
    codes = [c for c in [*range(0x10000), *range(0x10000, 0x20000)] if not 0xD800 <= c < 0xE000]
    codes = [c for c in codes if unicodedata.category(chr(c)) != "Cn"]
    texts = ["".join(f"a{c}b {c} .{c}'{c}s" for c in map(chr, codes[i : i + 16])) for i in range(0, len(codes), 16)]
    wrong = [text for text in texts if ours.encode(text) != theirs.encode(text, add_special_tokens=False).ids]
    assert wrong == []
