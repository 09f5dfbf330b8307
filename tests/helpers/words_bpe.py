"""A BPE of CLIP's kind, made by hand: every beginning of some words, and the words themselves with </w>."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.letters_bpe import alphabet

END = "</w>"
BEGIN_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
CUT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class WordsBpe:
    """The bytes, the bytes at the end of a word, beginnings of words, words, plain pieces that no merge makes, then
    where texts begin and end; `merges` in the order of use. first: pieces in front of all."""

    def __init__(self, words: Sequence[str], first: Sequence[str] = ()) -> None:
        begun = list(dict.fromkeys(word[:n] for word in words for n in range(2, len(word))))
        whole = [word + END for word in dict.fromkeys(words) if len(word) > 1]
        self.pieces = [*first, *alphabet(), *(letter + END for letter in alphabet()), *begun, *whole]
        self.pieces += [BEGIN_TOKEN, END_TOKEN]
        self.types = [1] * (len(self.pieces) - 2) + [3, 3]
        self.merges = [f"{piece[:-1]} {piece[-1]}" for piece in begun]
        self.merges += [f"{word[:-5]} {word[-5:]}" for word in whole]
        self.begin, self.end = len(self.pieces) - 2, len(self.pieces) - 1

    def entries(self) -> dict[str, Any]:
        """tokenizer.ggml.*"""
        return {
            "tokenizer.ggml.model": ("str", "gpt2"),
            "tokenizer.ggml.pre": ("str", "clip"),
            "tokenizer.ggml.tokens": ("[str]", self.pieces),
            "tokenizer.ggml.token_type": ("[i32]", self.types),
            "tokenizer.ggml.merges": ("[str]", self.merges),
            "tokenizer.ggml.bos_token_id": ("u32", self.begin),
            "tokenizer.ggml.eos_token_id": ("u32", self.end),
            "tokenizer.ggml.add_bos_token": ("bool", True),
            "tokenizer.ggml.add_space_prefix": ("bool", False),
        }

    def vocab(self) -> dict[str, int]:
        """vocab.json."""
        return {piece: number for number, piece in enumerate(self.pieces)}

    def tokenizer_json(self) -> dict[str, Any]:
        """tokenizer.json, as published."""
        return {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [
                {"id": number, "content": self.pieces[number], "special": True, "single_word": False, "lstrip": False,
                 "rstrip": False, "normalized": False}
                for number in (self.begin, self.end)
            ],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                    {"type": "Lowercase"},
                ],
            },
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": CUT}, "behavior": "Removed", "invert": True},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                ],
            },
            "post_processor": {
                "type": "RobertaProcessing", "sep": [END_TOKEN, self.end], "cls": [BEGIN_TOKEN, self.begin],
                "trim_offsets": False, "add_prefix_space": False,
            },
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {
                "type": "BPE", "dropout": None, "unk_token": END_TOKEN, "continuing_subword_prefix": "",
                "end_of_word_suffix": END, "fuse_unk": False, "vocab": self.vocab(), "merges": self.merges,
            },
        }  # fmt: skip

    def write(self, folder: Path, *, fast: bool = True) -> None:
        """tokenizer.json, or vocab.json and merges.txt; tokenizer_config.json."""
        settings = {
            "tokenizer_class": "CLIPTokenizer", "bos_token": BEGIN_TOKEN, "eos_token": END_TOKEN,
            "unk_token": END_TOKEN, "pad_token": END_TOKEN, "model_max_length": 77,
        }  # fmt: skip
        files = {
            "tokenizer_config": settings,
            **({"tokenizer": self.tokenizer_json()} if fast else {"vocab": self.vocab()}),
        }
        for name, value in files.items():
            (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
        if not fast:
            lines = "#version: 0.2\n" + "\n".join(self.merges) + "\n"
            (folder / "merges.txt").write_text(lines, encoding="utf-8")
