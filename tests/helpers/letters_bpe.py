"""A byte-level BPE made by hand, GPT-2's kind: every beginning of some words is a piece, one letter more per merge."""

from collections.abc import Sequence


def alphabet() -> list[str]:
    """GPT-2's letter of each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    others = (byte for byte in range(256) if byte not in letters)
    letters |= {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


def spell(text: str) -> str:
    """The text's bytes in these letters."""
    return "".join(alphabet()[byte] for byte in text.encode())


class LettersBpe:
    """Specials, plain pieces that no merge makes, the bytes, beginnings of the words (alone and after a blank), added
    tokens; `merges` in the order of use."""

    def __init__(
        self, words: Sequence[str], specials: Sequence[str] = (), added: Sequence[str] = (), plain: Sequence[str] = ()
    ) -> None:
        spelled = ["Ġ" + word for word in words] + list(words)
        merged = list(dict.fromkeys(word[:n] for word in spelled for n in range(2, len(word) + 1)))
        self.pieces = [*specials, *plain, *alphabet(), *merged, *added]
        self.types = [3] * len(specials) + [1] * (len(plain) + 256 + len(merged)) + [3] * len(added)
        self.merges = [f"{piece[:-1]} {piece[-1]}" for piece in merged]
