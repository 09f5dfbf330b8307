"""tiktoken's vocabularies: "base64 rank" per line, to pieces in GPT-2's alphabet and merges.

tiktoken merges the neighbours whose joint piece has the lowest rank. A list of merges says the same: each piece once,
as the pair that those of lower rank leave of it.
"""

import base64
import binascii
import itertools
from dataclasses import dataclass
from pathlib import Path

from kosmos_edge.errors import ModelCorrupt

from .bpe_files import MAX_PIECE_BYTES, MAX_TOTAL_BYTES
from .tokenizer import MAX_PIECES

_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _PRINTED]
_LETTERS = {**{b: chr(b) for b in _PRINTED}, **{b: chr(256 + i) for i, b in enumerate(_HIDDEN)}}


@dataclass(frozen=True)
class Tiktoken:
    """Pieces by rank, in GPT-2's alphabet, and their merges in order of rank."""

    pieces: dict[int, str]
    merges: list[tuple[str, str]]


def spell(data: bytes) -> str:
    """Bytes in GPT-2's alphabet, which has a printable character for each."""
    return "".join(_LETTERS[byte] for byte in data)


def read_tiktoken(data: bytes, where: Path) -> Tiktoken:
    """The vocabulary of a .tiktoken file; ModelCorrupt names the line that is wrong."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            coded, rank = line.split()
            piece, place = base64.b64decode(coded, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise ModelCorrupt(f"{where}, line {number}: {line[:80]!r} is no piece in base64 with a rank") from None
        if (
            not 0 < len(piece) <= MAX_PIECE_BYTES
            or not 0 <= place < MAX_PIECES
            or ranks.setdefault(piece, place) != place
        ):
            raise ModelCorrupt(
                f"{where}, line {number}: piece {piece[:80]!r} with rank {place} is too long, or twice there"
            )
    if len(set(ranks.values())) != len(ranks) or not ranks:
        raise ModelCorrupt(f"{where}: {len(ranks)} pieces have {len(set(ranks.values()))} ranks")
    if sum(map(len, ranks)) > MAX_TOTAL_BYTES:
        raise ModelCorrupt(f"{where}: the pieces have more than {MAX_TOTAL_BYTES} bytes")
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    merges = [_pair(piece, ranks, where) for piece, _ in ordered if len(piece) > 1]
    return Tiktoken({rank: spell(piece) for piece, rank in ordered}, [(spell(a), spell(b)) for a, b in merges])


def _pair(piece: bytes, ranks: dict[bytes, int], where: Path) -> tuple[bytes, bytes]:
    """The two parts of a piece that pieces of lower rank leave."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    limit = ranks[piece]
    while len(parts) > 2:
        joint = [(ranks.get(a + b, limit), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        rank, at = min(joint)
        if rank >= limit:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    if len(parts) != 2 or any(ranks.get(part, limit) >= limit for part in parts):
        raise ModelCorrupt(f"{where}: piece {piece[:80]!r} of rank {limit} is not made of two pieces of lower rank")
    return parts[0], parts[1]
