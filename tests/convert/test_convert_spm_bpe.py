"""sentencepiece BPE vocabularies in a checkpoint's files: the converted one gives the ids of sentencepiece and of
transformers; files of another kind are refused."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bpe_vocabularies import SpmBpe, random_texts
from helpers.vocabularies import proto_fields

from kosmos_edge import _core
from kosmos_edge.convert.gguf import encode_header
from kosmos_edge.convert.sources.files import Folder
from kosmos_edge.convert.sources.tokenizer_files import TokenizerFiles
from kosmos_edge.convert.spm_bpe import SpmBpe as Converted
from kosmos_edge.convert.spm_bpe import read_spm_bpe
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

SPECIALS = ("<unk>", "<s>", "</s>")
ADDED = ("<image>", "<pad>", "<mark>")  # the last one is no control token


@pytest.fixture(scope="module")
def trained() -> SpmBpe:
    return SpmBpe()


def read(folder: Path, llama_class: bool = False) -> Converted:
    files: list[Any] = []
    try:
        return read_spm_bpe(TokenizerFiles(Folder(folder), None, files), llama_class=llama_class)
    finally:
        for file in files:
            file.close()


def load(vocabulary: Converted, folder: Path) -> _core.Tokenizer:
    """The engine's tokenizer, from the keys of a file."""
    path = folder / "vocabulary.gguf"
    path.write_bytes(encode_header(vocabulary.entries(), []))
    return _core.Tokenizer.load(str(path))


def write_json(folder: Path, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def tokenizer_json(trained: SpmBpe) -> dict[str, Any]:
    return trained.tokenizer_json(ADDED, plain="<mark>")


def plain_texts(trained: SpmBpe, count: int, seed: int) -> list[str]:
    """Without the strings of specials, which the references find in text."""
    texts = random_texts(trained.pieces, count, seed)
    return [t for t in texts if not any(s in t for s in (*SPECIALS, *ADDED))]


# ---- tokenizer.model


OPTIONS = {  # of the trainer
    "llama": {},
    "no prefix": {"add_dummy_prefix": False},
    "folded": {"remove_extra_whitespaces": True},
    "normalised": {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True, "split_digits": False},
    "no bytes": {"byte_fallback": False, "vocab_size": 400},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_sentencepiece_model_gives_its_ids(name: str, tmp_path: Path) -> None:
    vocabulary = SpmBpe(**OPTIONS[name])
    (tmp_path / "tokenizer.model").write_bytes(vocabulary.model)
    tokenizer = load(read(tmp_path), tmp_path)
    texts = random_texts(vocabulary.pieces, 2_000, seed=21)
    assert [t for t in texts if tokenizer.encode(t) != vocabulary.reference.encode(t)] == []
    assert tokenizer.size == len(vocabulary.pieces)


def test_its_keys_are_llama_cpps(trained: SpmBpe, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained.model)
    values = {key.removeprefix("tokenizer.ggml."): value for key, _, value in read(tmp_path).entries()}
    assert values["model"] == "llama"
    assert (values["tokens"], values["scores"], values["token_type"]) == (trained.pieces, trained.scores, trained.types)
    assert [values[f"{name}_token_id"] for name in ("unknown", "bos", "eos")] == [0, 1, 2]
    assert "padding_token_id" not in values and "precompiled_charsmap" not in values
    assert values["add_bos_token"] is values["add_space_prefix"] is True


@pytest.mark.parametrize("where", ["tokenizer_config", "added_tokens"])
def test_added_tokens_follow_a_sentencepiece_model(trained: SpmBpe, tmp_path: Path, where: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained.model)
    count = len(trained.pieces)
    if where == "tokenizer_config":
        rows = {str(count + i): {"content": t, "special": t != "<mark>"} for i, t in enumerate(ADDED)}
        rows |= {str(i): {"content": t, "special": True} for i, t in enumerate(SPECIALS)}
        write_json(tmp_path, tokenizer_config={"added_tokens_decoder": rows, "pad_token": {"content": "<pad>"}})
    else:
        special = {"pad_token": "<pad>", "additional_special_tokens": [{"content": "<image>"}]}
        write_json(tmp_path, added_tokens={t: count + i for i, t in enumerate(ADDED)}, special_tokens_map=special)
    vocabulary = read(tmp_path)
    assert vocabulary.tokens == [*trained.pieces, *ADDED]
    assert vocabulary.kinds == [*trained.types, 3, 3, 4]
    assert vocabulary.pad == count + 1
    tokenizer = load(vocabulary, tmp_path)
    assert tokenizer.encode_with_tags("<mark>")[0] == count + 2
    assert tokenizer.encode_with_tags("<image>") == tokenizer.encode("<image>")  # no text becomes a control token


# ---- tokenizer.json


def test_a_tokenizer_json_gives_the_order_and_options_of_the_model(trained: SpmBpe, tmp_path: Path) -> None:
    vocabulary = read(write_json(tmp_path, tokenizer=tokenizer_json(trained)))
    by_score = sorted(range(len(trained.pieces)), key=lambda i: -trained.scores[i])
    merged = [i for i in by_score if trained.types[i] == 1 and len(trained.pieces[i]) > 1]
    assert merged == sorted(merged, key=lambda i: -vocabulary.scores[i]) and len(merged) > 100
    assert vocabulary.kinds == [*trained.types, 3, 3, 4]
    tokenizer = load(vocabulary, tmp_path)
    texts = plain_texts(trained, 3_000, seed=22)
    assert [t for t in texts if tokenizer.encode(t) != trained.reference.encode(t)] == []


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("legacy", [True, False, None])
def test_a_tokenizer_json_gives_the_ids_of_transformers(
    trained: SpmBpe, tmp_path: Path, legacy: bool | None, pairs: bool
) -> None:
    """legacy as LlamaTokenizer finds it in tokenizer_config.json; None: the tokenizers library reads the file as it
    stands."""
    written = tokenizer_json(trained)
    if pairs:
        written["model"]["merges"] = [merge.split(" ") for merge in written["model"]["merges"]]
    config = {"tokenizer_class": "LlamaTokenizer", "pad_token": "<pad>"} | (
        {} if legacy is None else {"legacy": legacy}
    )
    folder = write_json(tmp_path, tokenizer=written, tokenizer_config=config)
    encode: Callable[[str], list[int]]
    if legacy is None:
        tokenizers = pytest.importorskip("tokenizers", reason="the reference is the tokenizers library")
        library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        encode = lambda text: library.encode(text, add_special_tokens=False).ids  # noqa: E731
    else:
        transformers = pytest.importorskip("transformers", reason="the reference is transformers")
        reference = transformers.AutoTokenizer.from_pretrained(str(folder))
        encode = lambda text: reference.encode(text, add_special_tokens=False)  # noqa: E731
    tokenizer = load(read(folder, llama_class=legacy is not None), tmp_path)
    rng = random.Random(23)
    plain = plain_texts(trained, 1_500, seed=24)
    mixed = ["".join(rng.choice([rng.choice(plain)[:20], "<mark>", " ", ""]) for _ in range(5)) for _ in range(1_000)]
    texts = [*plain, *(t for t in mixed if not any(s in t for s in (*SPECIALS, *ADDED[:2]))), " leading", "<mark>\nx"]
    assert len(texts) > 2_000
    assert [t for t in texts if tokenizer.encode_with_tags(t) != encode(t)] == []


def test_what_transformers_saves_is_read(trained: SpmBpe, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="it writes the files")
    first = write_json(tmp_path / "first", tokenizer=tokenizer_json(trained), tokenizer_config={
        "tokenizer_class": "LlamaTokenizer", "legacy": False, "pad_token": "<pad>"})  # fmt: skip
    reference = transformers.AutoTokenizer.from_pretrained(str(first))
    reference.save_pretrained(tmp_path / "second")
    vocabulary = read(tmp_path / "second")
    assert vocabulary.tokens == [*trained.pieces, *ADDED]
    tokenizer = load(vocabulary, tmp_path)
    texts = plain_texts(trained, 1_000, seed=25)
    assert [t for t in texts if tokenizer.encode(t) != reference.encode(t, add_special_tokens=False)] == []


def test_rows_without_a_token_are_unused(trained: SpmBpe, tmp_path: Path) -> None:
    vocabulary = read(write_json(tmp_path, tokenizer=tokenizer_json(trained)))
    count = len(vocabulary.tokens)
    padded = vocabulary.padded(count + 3)
    assert padded.tokens == [*vocabulary.tokens, *(f"[PAD{count + i}]" for i in range(3))]
    assert padded.kinds[count:] == [5, 5, 5] and len(padded.scores) == count + 3
    assert load(padded, tmp_path).decode([count, count + 2]) == ""
    with pytest.raises(ModelCorrupt, match=rf"the vocabulary has {count} tokens, the embedding {count - 1} rows"):
        vocabulary.padded(count - 1)


def test_a_gap_in_the_ids_is_unused(trained: SpmBpe, tmp_path: Path) -> None:
    written = tokenizer_json(trained)
    written["added_tokens"][-1]["id"] += 2
    vocabulary = read(write_json(tmp_path, tokenizer=written))
    assert vocabulary.kinds[-4:] == [3, 5, 5, 4]
    assert load(vocabulary, tmp_path).encode_with_tags("<mark>") == [len(vocabulary.tokens) - 1]


# ---- what is refused


def _merges(change: Callable[[list[str]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda root: change(root["model"]["merges"])


def _swap_far(merges: list[str]) -> None:
    merges[0], merges[-1] = merges[-1], merges[0]


BAD_JSON: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another model": (lambda r: r["model"].update(type="Unigram"), "model is 'Unigram'; expected a BPE model"),
    "no model": (lambda r: r.update(model=[1]), "model is list of 1; expected a BPE model"),
    "dropout": (lambda r: r["model"].update(dropout=0.1), "model.dropout is 0.1; only none"),
    "a suffix": (lambda r: r["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix is '</w>'"),
    "ignored merges": (lambda r: r["model"].update(ignore_merges=True), "ignore_merges is true"),
    "no unknown piece": (lambda r: r["model"].update(unk_token="<?>"), "unk_token is '<.>', expected a piece"),
    "a byte is missing": (lambda r: r["model"]["vocab"].pop("<0x41>"), r"1 bytes have no piece \(<0x41>\)"),
    "no bytes and runs": (lambda r: r["model"].update(byte_fallback=False, fuse_unk=False), "expected one of them"),
    "an id that is a text": (lambda r: r["model"]["vocab"].update(x="5"), "piece 'x' has the id '5'"),
    "an id out of range": (lambda r: r["model"]["vocab"].update(x=1 << 40), "has the id 1099511627776"),
    "a far id": (lambda r: r["model"]["vocab"].update(xyzzy=1 << 19), "without large gaps"),
    "an id twice": (lambda r: r["model"]["vocab"].update(xyzzy=300), "have one id, 300"),
    "half a character": (lambda r: r["model"]["vocab"].update({"\ud800": 999}), "not valid Unicode"),
    "a long piece": (lambda r: r["model"]["vocab"].update({"x" * 1025: 999}), "has 1025 bytes"),
    "no vocabulary": (lambda r: r["model"].update(vocab={}), "expected an object of 1"),
    "a merge of three": (_merges(lambda m: m.append("a b c")), "is 'a b c', expected two pieces"),
    "a merge of nothing": (_merges(lambda m: m.append(" a")), "expected two pieces"),
    "a merge of strangers": (_merges(lambda m: m.append("zz qq")), "is not of pieces of the vocabulary"),
    "a merge is missing": (_merges(lambda m: m.pop(40)), "but they are no merge: this is not sentencepiece's kind"),
    "merges without scores": (_merges(lambda m: m.append(m[0])), "do not follow each other"),
    "no list of merges": (lambda r: r["model"].update(merges="ab"), "the merges are 'ab'"),
    "another normalizer": (lambda r: r.update(normalizer={"type": "NFKC"}), "normalizer 'NFKC' is not one of"),
    "a normalizer that is a text": (lambda r: r.update(normalizer="Prepend"), "normalizer 'Prepend' is not one of"),
    "a sequence that is a text": (lambda r: r.update(normalizer="Sequence"), "normalizer None is not one of"),
    "a cut that is a text": (lambda r: r.update(pre_tokenizer="Metaspace"), "pre_tokenizer is 'Metaspace'"),
    "no blanks": (lambda r: r.update(normalizer=None), "writes blanks as U"),
    "words are cut": (
        lambda r: r.update(pre_tokenizer={"type": "Metaspace", "replacement": "▁", "split": True}),
        "expected Metaspace that does not split",
    ),
    "another cut": (lambda r: r.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer is 'Whitespace'"),
    "an added token elsewhere": (lambda r: r["added_tokens"][0].update(id=5), "the vocabulary has '<0x02>' there"),
    "an added token strips": (lambda r: r["added_tokens"][-1].update(lstrip=True), "lstrip is True; only false"),
    "two added with one id": (
        lambda r: r["added_tokens"].append(r["added_tokens"][-1] | {"content": "x"}),
        "'<mark>' and 'x' have one id",
    ),
    "added tokens of no form": (lambda r: r.update(added_tokens=[1]), "added tokens are list of 1"),
    "no end": (
        lambda r: r["added_tokens"].clear() or r["model"]["vocab"].pop("</s>"),
        "eos_token is '</s>', which is no",
    ),
    "truncation": (lambda r: r.update(truncation={"max_length": 5}), "truncation is dict of 1"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_tokenizer_json_is_refused(trained: SpmBpe, tmp_path: Path, case: str) -> None:
    change, message = BAD_JSON[case]
    written = tokenizer_json(trained)
    change(written)
    with pytest.raises(ModelCorrupt, match=message):
        read(write_json(tmp_path, tokenizer=written))


@pytest.mark.parametrize("written, message", [("[]", "expected a JSON object"), (" {", "not valid JSON")])
def test_json_that_is_no_object_is_not_called_sentencepiece(tmp_path: Path, written: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(written)
    with pytest.raises(ModelCorrupt, match=message):
        read(tmp_path)


def _field(number: int, value: bytes) -> bytes:
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


BAD_MODELS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "unigram": (lambda m: m + _field(2, b"\x18\x01"), "model type 1, expected 2"),
    "blanks stay": (lambda m: m + _field(3, b"\x28\x00"), "blanks are not written as U"),
    "blanks behind words": (lambda m: m + _field(2, b"\x18\x02\xc0\x01\x01"), "blanks are not written as U"),
    "a piece twice": (lambda m: m + _field(1, b"\x0a\x05<unk>"), "pieces, 600 different ones"),
    "cut off": (lambda m: m[:-3], "not a sentencepiece model"),
    "empty": (lambda m: b"", "expected 2"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_sentencepiece_models_are_refused(trained: SpmBpe, tmp_path: Path, case: str) -> None:
    change, message = BAD_MODELS[case]
    (tmp_path / "tokenizer.model").write_bytes(change(trained.model))
    with pytest.raises(ModelCorrupt, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"legacy": "yes"}, "legacy is 'yes', expected true or false"),
        ({"eos_token": 5}, "eos_token is 5, expected a text"),
        ({"pad_token": "<none>"}, "pad_token is '<none>', which is no token"),
    ],
)
def test_bad_settings_are_refused(trained: SpmBpe, tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelCorrupt, match=message):
        read(write_json(tmp_path, tokenizer=tokenizer_json(trained), tokenizer_config=config), llama_class=True)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no tokenizer.json and no tokenizer.model in"):
        read(tmp_path)


def test_the_trained_model_has_the_fields_that_are_read(trained: SpmBpe) -> None:
    """The numbers of fields in sentencepiece_model.proto, against what sentencepiece itself writes."""
    model = SpmBpe(add_dummy_prefix=False, remove_extra_whitespaces=True, treat_whitespace_as_suffix=True).model
    parts = {number: dict(proto_fields(value)) for number, value in proto_fields(model) if number in (2, 3)}
    assert (parts[2][3], parts[2][24]) == (2, 1)
    assert (parts[3][3], parts[3].get(4, 1)) == (0, 1)
    assert dict(proto_fields(dict(proto_fields(trained.model))[3])).get(4) == 0


def test_damaged_files_give_typed_errors(trained: SpmBpe, tmp_path: Path) -> None:
    """Any value of the file becomes something else: it is read, or ModelCorrupt."""
    from kosmos_edge.convert.bpe_files import Settings, read_bpe_json
    from kosmos_edge.convert.spm_bpe import from_json

    rng = random.Random(26)
    text = json.dumps(tokenizer_json(trained))
    odd: list[Any] = [
        None,
        True,
        -1,
        1 << 70,
        0.5,
        "",
        "x",
        "\ud800",
        [],
        [1],
        ["a", "b"],
        {},
        {"type": "BPE"},
        "<0x41>",
    ]
    refused = 0
    for _ in range(150):
        root = json.loads(text)
        for _ in range(rng.randint(1, 3)):
            at: Any = root
            while True:
                key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
                deeper = at[key] if isinstance(at[key], (dict, list)) and at[key] else None
                if deeper is None or rng.random() < 0.2:
                    at[key] = rng.choice(odd)
                    break
                at = deeper
        try:
            from_json(read_bpe_json(root, tmp_path), Settings({}, {}, {}, tmp_path), tmp_path)
        except ModelCorrupt:
            refused += 1
    assert refused > 50
