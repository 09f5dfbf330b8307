"""KOSMOS-2.5 in unilm's layout (ckpt.pt, dict.txt, cl100k_base.tiktoken) becomes the file that transformers' gives."""

import array
import base64
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.convert_checkpoint import (
    Raw,
    convert_cast,
    convert_torch_state,
    convert_zip_bytes,
    op_build,
    op_call,
    op_global,
    op_ordered,
    op_pickle,
    op_tensor,
)
from helpers.kosmos2_5_checkpoint import SPECIALS, PageVocabulary, State, alphabet, random_state, write_hf

from kosmos_edge import _core
from kosmos_edge.convert import convert, verify
from kosmos_edge.convert.tiktoken_bpe import read_tiktoken
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

HEADS = {"width": 192, "heads": 2, "vision": 128, "vision_heads": 2, "positions": 4096}  # of the published widths
VOCABULARY = PageVocabulary()
FIRST_FIXED = VOCABULARY.id("<mask>")


def bytes_of(piece: str) -> bytes:
    letters = alphabet()
    return bytes(letters.index(c) for c in piece)


def unilm_name(name: str) -> str:
    """transformers' tensor name -> unilm's, written down independently of the converter."""
    for theirs, ours in (
        ("text_model.model.", "gpt_model.decoder."),
        ("image_to_text_projection.", "img_connector."),
        ("vision_model.", "img_model."),
    ):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise AssertionError(name)


def write_vocabulary(folder: Path, ranks: list[int] | None = None, unused: int = 0) -> None:
    """ranks: of the pieces in the order of ids. unused: further ranks, which dict.txt lists and tiktoken has not."""
    pieces = VOCABULARY.pieces[len(SPECIALS) : FIRST_FIXED]
    ranks = list(range(len(pieces))) if ranks is None else ranks
    lines = sorted((rank, base64.b64encode(bytes_of(piece))) for rank, piece in zip(ranks, pieces, strict=True))
    (folder / "cl100k_base.tiktoken").write_bytes(b"".join(b"%s %d\n" % (code, rank) for rank, code in lines))
    listed = [*ranks, *range(len(pieces), len(pieces) + unused)]
    (folder / "dict.txt").write_text("".join(f"{rank} 1\n" for rank in listed))


def write_unilm(
    folder: Path, state: State, dtype: str = "F32", args: Raw | None = None, head: State | None = None
) -> Path:
    """A folder with ckpt.pt: the embedding twice (`head`: another tensor there), two buffers of no use."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(folder)
    named = {unilm_name(name): tensor for name, tensor in state.items()}
    embedding = state["text_model.model.embed_tokens.weight"] if head is None else head["head"]
    named["gpt_model.decoder.output_projection.weight"] = embedding  # a copy of its own in the file
    tensors, records = convert_torch_state(named, dtype)
    records["float"], records["sope"] = convert_cast(bytes(4), dtype), convert_cast(bytes(64), dtype)
    tensors["gpt_model.decoder.embed_positions._float_tensor"] = op_tensor("float", dtype, (1,))
    tensors["gpt_model.decoder.self_attn_sope.scale"] = op_tensor("sope", dtype, (16,))
    root: dict[str, Any] = {"model": op_ordered(tensors)}
    if args is not None:
        root["args"] = args
    convert_zip_bytes(folder / "ckpt.pt", op_pickle(root), records, prefix="ckpt")
    return folder


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(len(VOCABULARY.pieces), **HEADS)


@pytest.fixture(scope="module")
def published(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf(tmp_path_factory.mktemp("hf"), VOCABULARY, state, **HEADS)


@pytest.fixture(scope="module")
def unilm(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unilm(tmp_path_factory.mktemp("unilm"), state)


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    """-> (metadata without the hashes of the source's files, tensors)"""
    file = _core.GgufFile(str(path))
    metadata = {key: value for key, value in file.metadata().items() if not key.endswith("source.sha256")}
    return metadata, {name: (dtype, tuple(shape), file.tensor_data(name)) for name, dtype, shape, *_ in file.tensors()}


@pytest.mark.parametrize("type", ["f32", "f16", "q8_0", "q4_k_m"])
def test_both_layouts_give_the_same_file(published: Path, unilm: Path, tmp_path: Path, type: str) -> None:
    a = convert(published, tmp_path / "a.gguf", type=type)
    b = convert(unilm, tmp_path / "b.gguf", type=type)
    theirs, ours = contents(a.output), contents(b.output)
    assert ours[1] == theirs[1] and len(ours[1]) > 60
    assert ours[0] == theirs[0]
    assert verify(b.output) == []
    assert [line.partition(":")[0] for line in b.sha256] == ["ckpt.pt", "cl100k_base.tiktoken", "dict.txt"]


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_other_precisions(state: State, tmp_path: Path, dtype: str) -> None:
    a = convert(write_hf(tmp_path / "hf", VOCABULARY, state, dtype, **HEADS), tmp_path / "a.gguf", type="f32")
    b = convert(write_unilm(tmp_path / "pt", state, dtype), tmp_path / "b.gguf", type="f32")
    assert contents(a.output)[1] == contents(b.output)[1]


def test_a_weights_file_by_itself_and_the_vocabulary_elsewhere(unilm: Path, published: Path, tmp_path: Path) -> None:
    whole = contents(convert(unilm, tmp_path / "a.gguf", type="f32").output)
    assert contents(convert(unilm / "ckpt.pt", tmp_path / "b.gguf", type="f32").output) == whole
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "ckpt.pt").write_bytes((unilm / "ckpt.pt").read_bytes())
    for tokenizer in (unilm, unilm / "cl100k_base.tiktoken", published):
        made = convert(alone, tmp_path / f"{tokenizer.name}.gguf", type="f32", tokenizer=tokenizer).output
        assert contents(made) == whole
    with pytest.raises(ModelNotFound, match=r"no tokenizer\.json and no .* in .*alone"):
        convert(alone, tmp_path / "c.gguf", type="f32")


def test_heads_are_those_of_the_settings_or_of_the_published_width(state: State, tmp_path: Path) -> None:
    args = op_build(op_call(op_global("argparse", "Namespace"), opcode=b"\x81"), {"decoder_attention_heads": 6})
    made = convert(write_unilm(tmp_path / "pt", state, args=args), tmp_path / "a.gguf", type="f32").output
    assert _core.GgufFile(str(made)).metadata()["kosmos2_5.attention.head_count"] == 6


def test_a_second_embedding_that_differs_is_refused(state: State, tmp_path: Path) -> None:
    shape, data = state["text_model.model.embed_tokens.weight"]
    values = array.array("f", data)
    values[-1] += 1
    folder = write_unilm(tmp_path / "pt", state, head={"head": (shape, values.tobytes())})
    with pytest.raises(ModelCorrupt, match=r"text_model\.lm_head\.weight differs from the embedding"):
        convert(folder, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_a_tensor_that_is_missing_is_named(state: State, tmp_path: Path) -> None:
    without = {name: tensor for name, tensor in state.items() if "latent_query" not in name}
    with pytest.raises(
        ModelCorrupt, match=r"latent_query of 2 dimensions is missing: this is not a KOSMOS-2 or KOSMOS"
    ):
        convert(write_unilm(tmp_path / "a", without), tmp_path / "a.gguf")
    without = {name: tensor for name, tensor in state.items() if not name.endswith("layer.1.mlp.wo.weight")}
    with pytest.raises(ModelCorrupt, match=r"vision_model\.encoder\.layer\.1\.mlp\.wo\.weight .* is missing"):
        convert(write_unilm(tmp_path / "b", without), tmp_path / "b.gguf")


# ---- the vocabulary


def test_dict_txt_gives_the_ids(unilm: Path, state: State, tmp_path: Path) -> None:
    """Ranks 0..n in another order: the ids, and so the file, are the same as long as dict.txt says so."""
    pieces = FIRST_FIXED - len(SPECIALS)
    swapped = list(range(pieces))
    swapped[5], swapped[200] = swapped[200], swapped[5]  # two single bytes, which no merge makes
    folder = write_unilm(tmp_path / "pt", state)
    write_vocabulary(folder, swapped)
    made = contents(convert(folder, tmp_path / "b.gguf", type="f32").output)
    assert made == contents(convert(unilm, tmp_path / "a.gguf", type="f32").output)


def test_ranks_without_a_piece_are_unused_rows(tmp_path: Path) -> None:
    """As those of tiktoken's own special tokens, of which the published dict.txt lists 21."""
    rows = len(VOCABULARY.pieces)
    folder = write_unilm(tmp_path / "pt", random_state(rows + 4, **HEADS))
    write_vocabulary(folder, unused=4)
    metadata = contents(convert(folder, tmp_path / "a.gguf", type="f32").output)[0]
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert tokens[FIRST_FIXED : FIRST_FIXED + 5] == [*(f"[PAD{FIRST_FIXED + i}]" for i in range(4)), "<mask>"]
    assert list(types[FIRST_FIXED : FIRST_FIXED + 5]) == [5] * 4 + [3]
    assert tokens[FIRST_FIXED + 5 :] == VOCABULARY.pieces[FIRST_FIXED + 1 :]


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def go(folder: Path) -> None:
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(change(before))
        assert (folder / name).read_bytes() != before

    return go


TIKTOKEN = "cl100k_base.tiktoken"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove("dict.txt"), r"there is no dict\.txt beside it"),
        (edit("dict.txt", lambda text: text.replace(b"\n7 1\n", b"\nseven 1\n")), r"dict\.txt, line 8: 'seven 1'"),
        (edit("dict.txt", lambda text: text.replace(b"\n7 1\n", b"\n6 1\n")), "1 of cl100k_base.tiktoken are missing"),
        (edit("dict.txt", lambda text: text + b"99998 1\n"), "leave 47 of the embedding's .* pairs of coordinates"),
        (edit("dict.txt", lambda text: text + b"".join(b"%d 1\n" % (9000 + i) for i in range(48))), "leave 0 of the"),
        (edit(TIKTOKEN, lambda text: text.replace(b"AA== 0\n", b"!!== 0\n")), "line 1: .* is no piece in base64"),
        (edit(TIKTOKEN, lambda text: text.replace(b"AA== 0\n", b"AA==\n")), "line 1: .* is no piece in base64"),
        (edit(TIKTOKEN, lambda text: text.replace(b"AA== 0\n", b"AQ== 0\n")), "line 2: .* twice there"),
        (edit(TIKTOKEN, lambda text: text.replace(b"AA== 0\n", b"AA== 1\n")), r"\d+ pieces have \d+ ranks"),
        (edit(TIKTOKEN, lambda text: text + b"eHh4 90000\n"), "b'xxx' of rank 90000 is not made of two pieces"),
        (edit(TIKTOKEN, lambda text: b""), "0 pieces have 0 ranks"),
    ],
)
def test_a_vocabulary_that_is_wrong(unilm: Path, tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    for name in ("ckpt.pt", "dict.txt", TIKTOKEN):
        (tmp_path / name).write_bytes((unilm / name).read_bytes())
    damage(tmp_path)
    with pytest.raises(ModelCorrupt, match=reason):
        convert(tmp_path, tmp_path / "a.gguf")


def test_merges_are_those_of_the_published_vocabulary(shared_dir: Path) -> None:
    """tiktoken's own rule, with ranks, and the merges that were made of them split texts alike."""
    path = shared_dir / "data" / "kosmos-2.5" / TIKTOKEN
    if not path.exists():
        pytest.skip(f"{TIKTOKEN} is not here")
    data = path.read_bytes()
    made = read_tiktoken(data, path)
    assert len(made.pieces) == 100256 and len(made.merges) == 100000
    ranks = {base64.b64decode(code): int(rank) for code, rank in (line.split() for line in data.splitlines())}
    order = {pair: i for i, pair in enumerate(made.merges)}

    def by_ranks(word: bytes) -> list[bytes]:
        parts = [word[i : i + 1] for i in range(len(word))]
        while True:
            near = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
            if not near:
                return parts
            at = min(near)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]

    def by_merges(word: str) -> list[str]:
        parts = list(word)
        while True:
            near = [(order[p], i) for i, p in enumerate(pairwise(parts)) if p in order]
            if not near:
                return parts
            at = min(near)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]

    letters = alphabet()
    for word in (
        " unbelievable",
        " Zürich",
        "préparation",
        " 日本語の文字",
        "naïveté",
        "xqzjkw",
        " tokenization",
        "🙂🙃",
    ):
        raw = word.encode()
        assert [bytes_of(part) for part in by_merges("".join(letters[b] for b in raw))] == by_ranks(raw)
