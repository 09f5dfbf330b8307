"""Small BPE vocabularies, trained here: sentencepiece's with byte fallback, and byte-level ones."""

import io
import random
from typing import Any

import sentencepiece

from helpers.vocabularies import NORMAL, TAG, proto_fields
from kosmos_edge import _core

CONTROL, BYTE = 3, 6


def sentences(seed: int, count: int = 2_000) -> list[str]:
    """Lines of made-up words, numbers, marks, and a few other scripts."""
    rng = random.Random(seed)
    syllables = [
        "ba",
        "ke",
        "lo",
        "mi",
        "nu",
        "ra",
        "ste",
        "tion",
        "ing",
        "qu",
        "th",
        "e",
        "an",
        "d",
        "é",
        "ß",
        "ж",
        "日本",
    ]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(300)]
    lines = []
    for _ in range(count):
        line = " ".join(rng.choice([*words[:250], str(rng.randrange(3000)), "don't", "I'LL", "(x)"]) for _ in range(9))
        lines.append(line + rng.choice([".", "?", "!", ":", " …", ", "]) + rng.choice(words))
    return lines


class SpmBpe:
    """A sentencepiece BPE model and the tokenizers built from it; `added` tags follow its pieces."""

    def __init__(self, seed: int = 1, added: tuple[str, ...] = (), **options: Any) -> None:
        settings: dict[str, Any] = {
            "model_type": "bpe", "vocab_size": 600, "byte_fallback": True, "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False, "split_digits": True, "allow_whitespace_only_pieces": True,
            "character_coverage": 0.9995, "unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1,
            "num_threads": 1, "minloglevel": 2,
        }  # fmt: skip
        settings |= options
        buffer = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences(seed)), model_writer=buffer, **settings
        )
        self.model = buffer.getvalue()
        self.reference = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        fields = list(proto_fields(self.model))
        rows = [dict(proto_fields(value)) for number, value in fields if number == 1]
        self.charsmap = dict(proto_fields(next(v for n, v in fields if n == 3))).get(2, b"")
        self.added = added
        self.pieces = [row[1].decode() for row in rows] + list(added)
        self.scores = [row.get(2, 0.0) for row in rows] + [0.0] * len(added)
        self.types = [row.get(3, NORMAL) for row in rows] + [TAG] * len(added)

    def tokenizer(self, **options: bool) -> _core.Tokenizer:
        return _core.Tokenizer.spm_bpe(self.pieces, self.scores, self.types, self.charsmap, **options)

    def merges(self) -> list[tuple[str, str]]:
        """As transformers derives them: every split of a piece into two pieces, by the piece's score."""
        ids = {piece: i for i, piece in enumerate(self.pieces)}
        found = []
        for piece, score, kind in zip(self.pieces, self.scores, self.types, strict=True):
            if kind == NORMAL:
                splits = [(piece[:n], piece[n:]) for n in range(1, len(piece))]
                local = [(a, b) for a, b in splits if a in ids and b in ids]
                found += [(score, pair) for pair in sorted(local, key=lambda p: (ids[p[0]], ids[p[1]]))]
        return [pair for _, pair in sorted(found, key=lambda entry: -entry[0])]

    def tokenizer_json(self, added: tuple[str, ...] = (), plain: str = "") -> dict[str, Any]:
        """tokenizer.json as LLaMA's is written: merges in order; specials and `added` beside the pieces, all of them
        control tokens but `plain`."""
        texts = [*enumerate(("<unk>", "<s>", "</s>")), *enumerate(added, len(self.pieces))]
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": text, **flags, "special": text != plain} for i, text in texts],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                ],
            },
            "pre_tokenizer": None,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
            },
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": "<unk>",
                "fuse_unk": True,
                "byte_fallback": True,
                "vocab": {piece: i for i, piece in enumerate(self.pieces)},
                "merges": [f"{a} {b}" for a, b in self.merges()],
            },
        }


ODD = (
    "\x00\t\n\r\x0b\x1c\x7f\x85\xa0\xad"
    + "\u0345\u1680\u180e\u2003\u200b\u200d\u2028\u202f\u2581\u3000\ufeff\ufffd\U000e0001"
)


def random_texts(pieces: list[str], count: int, seed: int) -> list[str]:
    """Strings of pieces, blanks, controls, marks, many scripts, emoji, long runs, bytes spelled out."""
    rng = random.Random(seed)

    def anything() -> str:
        while 0xD800 <= (code := rng.randrange(0x110000)) < 0xE000:
            pass
        return chr(code)

    parts = [
        lambda: rng.choice(pieces).replace("▁", " "),
        lambda: rng.choice(pieces).replace("▁", " "),
        lambda: rng.choice(["  ", " ", "\n", "\r\n", " \n ", "'s", "'LL", "don't", "12345", "<0x0A>", "<s>", "</s>"]),
        lambda: rng.choice(ODD),
        lambda: chr(rng.randrange(0x20, 0x7F)),
        lambda: chr(rng.randrange(0x80, 0x600)),
        lambda: chr(rng.randrange(0x4E00, 0xA000)),
        lambda: chr(rng.randrange(0x1F300, 0x1FB00)),
        lambda: rng.choice("ae 日🙂\n1") * rng.choice([2, 3, 17, 300]),
        anything,
    ]
    texts = []
    for _ in range(count):
        few = rng.sample(parts, rng.randint(1, 5))
        texts.append("".join(rng.choice(few)() for _ in range(rng.choice([1, 2, 3, 5, 10, 30]))))
    return texts
