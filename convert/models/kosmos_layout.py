"""The tokens of KOSMOS-1 and KOSMOS-2 around sentencepiece's pieces. Imports nothing of the package: nano's training
recipe, which runs without it, reads this file too."""

from collections.abc import Sequence

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
BOS, PAD, EOS, UNK = range(4)
MASK = "<mask>"
TEXT_TAGS = ("</doc>", "<image>", "</image>", "</chunk>", "</line>")
TAGS = (
    *TEXT_TAGS,
    "<phrase>",
    "</phrase>",
    "<object>",
    "</object>",
    "</delimiter_of_multi_objects/>",
    "<grounding>",
)
LOCATION_BINS = 32  # per side, of a vocabulary that does not list its location tokens


def location(i: int) -> str:
    """The piece of location cell i (row-major from the upper left)."""
    return f"<patch_index_{i:04d}>"


def layout(pieces: Sequence[str], tags: Sequence[str] = TAGS, bins: int = LOCATION_BINS) -> list[str]:
    """All tokens by id. pieces: those of sentencepiece from its number 3 on."""
    return [*SPECIALS, *pieces, MASK, *tags, *(location(i) for i in range(bins * bins))]
