"""Byte-level BPE vocabularies, trained here: GPT-2's kind, for each way to cut a text."""

import json
from typing import Any

import tokenizers

from helpers.bpe_vocabularies import sentences
from helpers.cut_patterns import PATTERNS
from helpers.vocabularies import NORMAL, TAG
from kosmos_edge import _core

ADDED = ("<image>", "<md>")
CONTROL = 3


def cut_by(pattern: str) -> Any:
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizers.pre_tokenizers.Sequence([split, level])


class Trained:
    """A byte-level BPE trained with one pattern, and the tokenizer built from it."""

    def __init__(self, kind: str, whole_pieces: bool = False) -> None:
        self.reference = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=whole_pieces))
        self.reference.pre_tokenizer = cut_by(PATTERNS[kind])
        self.reference.decoder = tokenizers.decoders.ByteLevel()
        start = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=700, initial_alphabet=start, special_tokens=["</s>"], show_progress=False
        )
        self.reference.train_from_iterator(sentences(7), trainer)
        self.reference.add_tokens([tokenizers.AddedToken(t, normalized=False, special=False) for t in ADDED])
        model = json.loads(self.reference.to_str())["model"]
        if whole_pieces:  # a piece that its merges do not reach
            model["merges"] = model["merges"][:-30]
            model["ignore_merges"] = True
            state = json.loads(self.reference.to_str()) | {"model": model}
            self.reference = tokenizers.Tokenizer.from_str(json.dumps(state))
        vocabulary = self.reference.get_vocab(with_added_tokens=True)
        self.pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        self.types = [CONTROL if p == "</s>" else TAG if p in ADDED else NORMAL for p in self.pieces]
        self.merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        self.tokenizer = _core.Tokenizer.byte_bpe(self.pieces, self.types, self.merges, kind, whole_pieces)

    def expected(self, text: str) -> list[int]:
        return self.reference.encode(text, add_special_tokens=False).ids


def chat_vocabulary(added: tuple[str, ...], kind: str = "qwen2") -> tuple[list[str], list[str]]:
    """Pieces and merges of a trained vocabulary, with other added tokens behind them."""
    trained = Trained(kind)
    return [p for p, t in zip(trained.pieces, trained.types, strict=True) if t == NORMAL] + list(added), trained.merges
