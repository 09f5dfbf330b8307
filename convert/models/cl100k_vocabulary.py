"""The vocabulary of unilm's KOSMOS-2.5: fairseq's dict.txt, which lists ranks of cl100k_base, and tiktoken's file of
that name, which is not part of unilm.

Ids: `<s> <pad> </s> <unk>`, the ranks in the order of dict.txt, `<mask>`, the tags, and as many coordinates
`<x_i> <y_i>` as the embedding has rows left.
"""

from pathlib import Path

from kosmos_edge.errors import ModelCorrupt

from ..bpe_files import AddedToken, Settings
from ..byte_bpe import ByteBpe, make_byte_bpe
from ..sources.files import MAX_TOKENIZER_BYTES, brief
from ..sources.tokenizer_files import TokenizerFiles
from ..tiktoken_bpe import Tiktoken, read_tiktoken
from .kosmos_layout import MASK, SPECIALS

FILE = "cl100k_base.tiktoken"
_SETTINGS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
# Of transformers' tokenizer: tags that it takes for control tokens.
_CONTROL = ("<ocr>", "<image>", "</image>", "</chunk>", "<md>")


def read_fairseq_vocabulary(files: TokenizerFiles, tags: tuple[str, ...], rows: int) -> ByteBpe:
    """Reads both files. tags: in the order of their ids. rows: of the embedding."""
    file = files.first(FILE)
    ranks = read_tiktoken(file.read_all(MAX_TOKENIZER_BYTES), file.path)
    listed = files.optional("dict.txt")
    if listed is None:
        raise ModelCorrupt(f"{file.path}: there is no dict.txt beside it, which numbers its pieces")
    order = _read_order(listed.read_all(MAX_TOKENIZER_BYTES), ranks, listed.path)
    first_tag = len(SPECIALS) + len(order) + 1
    places, odd = divmod(rows - first_tag - len(tags), 2)
    if places < 1 or odd:
        raise ModelCorrupt(
            f"{listed.path}: {len(order)} pieces, {len(SPECIALS) + 1} special tokens and {len(tags)} tags leave "
            f"{rows - first_tag - len(tags)} of the embedding's {rows} rows; expected pairs of coordinates"
        )
    coordinates = [tag for i in range(places) for tag in (f"<x_{i}>", f"<y_{i}>")]
    added = {i: AddedToken(text, True) for i, text in enumerate(SPECIALS)}
    for i, text in enumerate([MASK, *tags, *coordinates], first_tag - 1):
        added[i] = AddedToken(text, text == MASK or text in _CONTROL)
    ids = {piece: len(SPECIALS) + i for i, rank in enumerate(order) if (piece := ranks.pieces.get(rank)) is not None}
    # Ranks that tiktoken's file lacks are its own special tokens: rows of the embedding that no text becomes.
    return make_byte_bpe(ids, ranks.merges, added, "dbrx", Settings(_SETTINGS, {}, {}, file.path), file.path)


def _read_order(data: bytes, ranks: Tiktoken, where: Path) -> list[int]:
    """The ranks that dict.txt ("rank count" per line) lists, in its order; all that the vocabulary has are there."""
    order = []
    for number, line in enumerate(data.split(b"\n")[: -1 if data.endswith(b"\n") else None], 1):
        rank = line.rsplit(b" ", 1)[0]
        if not rank.isdigit() or len(rank) > 7:
            raise ModelCorrupt(
                f"{where}, line {number}: {brief(line.decode(errors='replace'))}, expected a rank and a count"
            )
        order.append(int(rank))
    missing = ranks.pieces.keys() - set(order)
    if len(set(order)) != len(order) or missing:
        raise ModelCorrupt(
            f"{where}: {len(order)} ranks, {len(set(order))} of them different; {len(missing)} of {FILE} are missing"
        )
    return order
