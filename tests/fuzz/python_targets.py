"""The fuzz targets that are Python: what reads checkpoints, vocabularies and pictures.

Each target is `make(chance) -> bytes or dict` and `run(case, work) -> Outcome`. Any error but a typed one of the
package is a bug, and so is a model that converts but does not load, or a picture whose pixels do not fit its size.
"""

import io
import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))

from bpe_cases import make_bpe, open_bpe
from corpus import builder
from helpers.convert_checkpoint import (
    PIECES,
    SCORES,
    convert_config,
    convert_safetensors_bytes,
    convert_sentencepiece_bytes,
    convert_state,
    convert_tokenizer_json,
    convert_torch_state,
    op_build,
    op_call,
    op_global,
    op_ordered,
    op_pickle,
)
from helpers.gguf_builder import ARRAY, STRING, UINT32, UINT64
from mutation import TEXTS, Chance
from pictures import make_picture_case

from kosmos_edge import _core
from kosmos_edge.convert import convert, requantize, verify
from kosmos_edge.convert.models.kosmos_vocabulary import read_sentencepiece, read_tokenizer_json
from kosmos_edge.convert.sources.files import Folder, SourceFile
from kosmos_edge.convert.sources.weights import (
    read_sharded,
    read_state,
    read_torch,
    sniff,
)
from kosmos_edge.errors import (
    ContextTooLong,
    ImageDecodeError,
    InvalidRequest,
    ModelCorrupt,
    ModelNotFound,
)
from kosmos_edge.images import open_image

SMALL = {
    "width": 32,
    "ff": 32,
    "layers": 1,
    "heads": 4,
    "vision": 32,
    "vision_ff": 32,
    "vision_layers": 1,
    "latents": 2,
}
STATE = convert_state(**SMALL)
TORCH_TENSORS, TORCH_RECORDS = convert_torch_state(STATE)
FEW = {name: STATE[name] for name in list(STATE)[1:6]}
FEW_TENSORS, FEW_RECORDS = convert_torch_state(FEW)
SETTINGS = dict(
    text_config__embed_dim=32, text_config__ffn_dim=32, text_config__layers=1, text_config__attention_heads=4,
    vision_config__hidden_size=32, vision_config__intermediate_size=32, vision_config__num_hidden_layers=1,
    vision_config__num_attention_heads=4, latent_query_num=2,
)  # fmt: skip


@dataclass
class Outcome:
    """How one case went; a bug is an exception instead."""

    accepted: bool = False
    captioned: bool = False
    error: str = ""


@dataclass(frozen=True)
class Target:
    """make: the bytes (or {file name: bytes}) of a case; run: reads them."""

    make: Callable[[Chance], Any]
    run: Callable[[Any, Path], Outcome]


def write(path: Path, data: bytes) -> Path:
    """The file is rewritten in place: a new one for each case would cost more than reading it."""
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(data)
        file.truncate()
    return path


def caption(path: Path) -> None:
    """One short caption of the model in that file: an answer, or an error by name."""
    engine = _core.Engine(str(path), threads=1)
    params = _core.GenerateParams()
    params.max_tokens = 2
    try:
        picture = engine.encode_image(bytes(range(48)), 4, 4)
        answer = engine.generate([("image", picture), ("text", "An image of")], params)
        assert all(0 <= i < engine.tokenizer.size for i in answer.token_ids)
    except ModelCorrupt as error:
        assert "finite" in str(error), error
    except ContextTooLong:
        assert engine.context_length < 12  # 10 positions of the prompt, 2 to follow


# ---- weights


def read_weights(data: bytes, work: Path) -> Outcome:
    """A weights file by content; every accepted tensor's bytes can be read."""
    with SourceFile(write(work / "weights", data)) as file:
        try:
            tensors = read_state(file)
        except (
            ModelCorrupt,
            InvalidRequest,
        ) as error:  # InvalidRequest: it looks like a GGUF file
            return Outcome(error=str(error))
        for tensor in tensors.values():
            assert 0 <= tensor.offset <= tensor.offset + tensor.nbytes <= file.size
            assert len(tensor.read(0, min(tensor.nbytes, 4096))) == min(tensor.nbytes, 4096)
    return Outcome(accepted=True)


def read_fairseq(data: bytes, work: Path) -> Outcome:
    """A torch file as kosmos-2.pt: unknown classes are inert there."""
    with SourceFile(write(work / "weights.pt", data)) as file:
        try:
            torch_file = read_torch(file, sniff(file))
            state = torch_file.root.get("model") if isinstance(torch_file.root, dict) else None
            tensors = torch_file.tensors(state, "model")
        except (ModelCorrupt, InvalidRequest) as error:
            return Outcome(error=str(error))
        for tensor in tensors.values():
            assert 0 <= tensor.offset <= tensor.offset + tensor.nbytes <= file.size
    return Outcome(accepted=True)


def make_safetensors(chance: Chance) -> bytes:
    """A header whose values lie, then bytes."""
    data = convert_safetensors_bytes(FEW, chance.choice(("F32", "F16", "BF16")))
    size = int.from_bytes(data[:8], "little")
    if chance.one_in(3):
        return chance.damage(data)
    header = chance.damage_json(json.loads(data[8 : 8 + size]))
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    if chance.one_in(4):
        text = chance.damage(text)
    length = chance.nasty(len(text)) % 2**64 if chance.one_in(8) else len(text)
    body = data[8 + size :]
    return length.to_bytes(8, "little") + text + (chance.damage(body) if chance.one_in(8) else body)


def torch_pickle(chance: Chance) -> tuple[bytes, dict[str, bytes]]:
    """A state dict's pickle, sometimes with odd values beside it."""
    root: Any = op_ordered(FEW_TENSORS)
    if chance.one_in(2):
        args = op_build(
            op_call(op_global("argparse", "Namespace"), opcode=b"\x81"),
            {"lr": [0.5, 7, -9, 1 << 40]},
        )
        root = {
            "model": op_ordered(FEW_TENSORS),
            "args": args,
            "x": [None, True, "t", 1.5],
        }
    if chance.one_in(6):
        root = op_call(
            op_global(*chance.choice((("os", "system"), ("torch", "load"), ("builtins", "eval")))),
            "x",
        )
    pickled = op_pickle(root)
    return (chance.damage(pickled) if chance.one_in(2) else pickled), FEW_RECORDS


def make_torch(chance: Chance) -> bytes:
    """The zip of torch.save with a damaged pickle, records or directory; or the stream that came before it."""
    pickled, records = torch_pickle(chance)
    if chance.one_in(6):
        keys = op_pickle(list(records))
        head = op_pickle(0x1950A86A20F9469CFC6C) + op_pickle(1001)
        head += op_pickle({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}) + pickled + keys
        for data in records.values():
            head += struct.pack("<Q", len(data) // 4) + data
        return chance.damage(head) if chance.one_in(2) else head
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", chance.choice((zipfile.ZIP_STORED,) * 6 + (zipfile.ZIP_DEFLATED,))) as archive:
        prefix = chance.choice(("archive", "archive", "a", "..", "/x"))
        archive.writestr(f"{prefix}/data.pkl", pickled)
        for key, data in records.items():
            if not chance.one_in(20):
                archive.writestr(f"{prefix}/data/{key}", data[: len(data) - 4 * chance.one_in(20)])
        if chance.one_in(4):
            archive.writestr(f"{prefix}/byteorder", chance.choice((b"little", b"big", b"")))
        if chance.one_in(30):
            archive.writestr(f"{prefix}/constants.pkl", b"")
    data = buffer.getvalue()
    if not chance.one_in(3):
        return data
    end = data.rfind(b"PK\x05\x06")  # the directory is a small part of the file: hit it half of the time
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    return data[:start] + chance.damage(data[start:]) if chance.one_in(2) else chance.damage(data)


# ---- an index and its shards


def make_index(chance: Chance) -> dict[str, bytes]:
    """Two shards and an index that may name anything."""
    names = list(FEW)
    parts = {"a.safetensors": names[:2], "b.safetensors": names[2:]}
    weight_map = {name: file for file, held in parts.items() for name in held}
    files = {file: convert_safetensors_bytes({n: FEW[n] for n in held}) for file, held in parts.items()}
    index = chance.damage_json({"metadata": {"total_size": 1}, "weight_map": weight_map})
    text = json.dumps(index).encode("utf-8", "surrogatepass")
    files["model.safetensors.index.json"] = chance.damage(text) if chance.one_in(4) else text
    return files


def run_index(case: dict[str, bytes], work: Path) -> Outcome:
    folder_path = work / "sharded"
    folder_path.mkdir(exist_ok=True)
    for name, data in case.items():
        write(folder_path / name, data)
    folder = Folder(folder_path)
    files: list[SourceFile] = []
    try:
        index = folder.open("model.safetensors.index.json")
        files.append(index)
        read_sharded(folder, index, files)
        return Outcome(accepted=True)
    except (ModelCorrupt, ModelNotFound) as error:
        return Outcome(error=str(error))
    finally:
        for file in files:
            assert file.path.parent == folder_path.resolve(), f"opened {file.path}"
            file.close()


# ---- vocabularies

TOKENIZER_JSON = convert_tokenizer_json(charsmap=b"")


def make_tokenizer_json(chance: Chance) -> bytes:
    if chance.one_in(4):
        return chance.damage(json.dumps(TOKENIZER_JSON).encode())
    return json.dumps(chance.damage_json(TOKENIZER_JSON)).encode("utf-8", "surrogatepass")


def make_sentencepiece(chance: Chance) -> bytes:
    scores = list(SCORES[4 : 4 + len(PIECES)])
    if chance.one_in(3):
        scores[chance.randrange(len(scores))] = chance.choice((0.0, 1e30, -3e38, float("inf"), float("nan")))
    data = convert_sentencepiece_bytes(scores=scores, charsmap=chance.randbytes(chance.randrange(3)))
    return chance.damage(data) if chance.one_in(2) else data


def run_vocabulary(read: Callable[[bytes], Any], data: bytes) -> Outcome:
    """An accepted vocabulary makes a tokenizer."""
    try:
        vocabulary = read(data)
    except ModelCorrupt as error:
        return Outcome(error=str(error))
    tokenizer = _core.Tokenizer(vocabulary.pieces, vocabulary.scores, vocabulary.types, vocabulary.charsmap)
    ids = tokenizer.encode("An image of </s><image> 画像 🙂 é")
    assert all(0 <= i < len(vocabulary.pieces) for i in ids)
    tokenizer.decode(ids)
    return Outcome(accepted=True, captioned=True)


def run_bpe(files: dict[str, bytes], work: Path) -> Outcome:
    """What either reader of BPE accepts makes a tokenizer."""
    folder = work / "bpe"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        write(folder / name, data)
    try:
        tokenizers = open_bpe(folder)
    except (ModelCorrupt, ModelNotFound) as error:
        return Outcome(error=str(error))
    for tokenizer in tokenizers:
        ids = tokenizer.encode_with_tags("abba <image> a </s> 画像 🙂 é")
        assert all(0 <= i < tokenizer.size for i in ids)
        tokenizer.decode([*ids, tokenizer.size - 1])
    return Outcome(accepted=True, captioned=True)


# ---- whole checkpoints: what converts must load and caption


def make_checkpoint(chance: Chance) -> dict[str, bytes]:
    """Hugging Face's layout with settings, vocabulary or weights changed a little."""
    files = {"model.safetensors": convert_safetensors_bytes(STATE, chance.choice(("F32", "F16")))}
    config = convert_config(**SETTINGS)
    generation = {"bos_token_id": 0, "no_repeat_ngram_size": 3}
    preprocessor = {
        "size": {"height": 56, "width": 56},
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
        "resample": 3,
    }
    settings = {
        "config.json": config, "generation_config.json": generation, "preprocessor_config.json": preprocessor,
        "kosmos_edge.json": {"name": "x", "prompts": {"caption": "An image of"}}, "tokenizer.json": TOKENIZER_JSON,
    }  # fmt: skip
    changed = chance.choice([*settings, "config.json", "config.json", "weights", ""])
    for name, value in settings.items():
        if name == "kosmos_edge.json" and changed != name:
            continue
        text = json.dumps(chance.damage_json(value) if name == changed else value)
        files[name] = text.encode("utf-8", "surrogatepass")
    if changed == "weights":
        data = files["model.safetensors"]
        files["model.safetensors"] = (
            data[:9000] + chance.damage(data[9000:]) if chance.one_in(2) else chance.damage(data)
        )
    if chance.one_in(20):
        del files[chance.choice(list(files))]
    return files


def run_checkpoint(case: dict[str, bytes], work: Path) -> Outcome:
    folder = work / "checkpoint"
    folder.mkdir(exist_ok=True)
    for name in os.listdir(folder):
        if name not in case:
            (folder / name).unlink()
    for name, data in case.items():
        write(folder / name, data)
    output = work / "out.gguf"
    try:
        convert(
            folder,
            output,
            type=("f16", "q8_0", "f32", "q4_k_m")[len(case) % 4],
            overwrite=True,
        )
    except (ModelCorrupt, ModelNotFound, InvalidRequest) as error:
        return Outcome(error=str(error))
    caption(output)
    return Outcome(accepted=True, captioned=True)


# ---- model files through Python: read, stored as another type, verified


def make_gguf(chance: Chance) -> bytes:
    """The small model with header fields, keys or tensors changed."""
    parts = builder()
    for _ in range(chance.randrange(3)):
        if chance.one_in(2):
            tensor = chance.choice(parts.tensors)
            kind = chance.randrange(4)
            if kind == 0:
                tensor.name = chance.choice(TEXTS).encode("utf-8", "surrogatepass")
            elif kind == 1:
                tensor.name = chance.choice((b"blk.7.attn_v.weight", b"blk.x.ffn_down.weight", b"v.blk.-1.ln1.bias"))
            elif kind == 2 and len(tensor.dims) == 2:
                tensor.dims = [tensor.dims[0] * tensor.dims[1], 1]
            else:
                tensor.data = chance.damage(tensor.data).ljust(len(tensor.data), b"\0")[: len(tensor.data)]
        else:
            key = chance.choice(list(parts.metadata))
            new = chance.choice((key, b"some.key", "κλειδί".encode()))
            text = chance.choice(TEXTS).encode("utf-8", "surrogatepass")
            values = [(UINT32, chance.nasty() % 2**32), (STRING, text), (UINT64, chance.nasty() % 2**64)]
            parts.metadata[new] = chance.choice([*values, (ARRAY, (STRING, [text] * 3)), (ARRAY, (UINT64, [1, 2]))])
    data = bytearray(parts.build())
    for _ in range(chance.randrange(2)):
        field = chance.choice(parts.fields)
        old = int.from_bytes(data[field.offset : field.offset + field.width], "little")
        value = chance.nasty(old) % 256**field.width
        data[field.offset : field.offset + field.width] = value.to_bytes(field.width, "little")
    return chance.damage(bytes(data)) if chance.one_in(8) else bytes(data)


def run_requantize(data: bytes, work: Path) -> Outcome:
    """Refused alike in both modes; else stored as another type, and what comes out verifies and captions."""
    path, output = write(work / "source.gguf", data), work / "stored.gguf"
    told = []
    for mode in ("mmap", "copy"):
        try:
            file = _core.GgufFile(str(path), mode)
            file.metadata()
            file.tensors()
            _core.Engine(str(path), threads=1, mode=mode)
        except ModelCorrupt as error:
            told.append(str(error))
    assert len(told) in (0, 2) and len(set(told)) <= 1, told
    try:
        requantize(path, output, type=("q8_0", "f16", "q4_k_m", "f32")[len(data) % 4], overwrite=True)
    except ModelCorrupt as error:
        return Outcome(accepted=not told, error=str(error))
    assert verify(output) == []
    if told:
        return Outcome(error=told[0])
    caption(output)
    return Outcome(accepted=True, captioned=True)


# ---- pictures


def run_picture(data: bytes, work: Path) -> Outcome:
    """Pixels of the size that is said, or an ImageDecodeError; small ones are captioned, too."""
    try:
        picture = open_image(data)
    except ImageDecodeError as error:
        return Outcome(error=str(error))
    assert len(picture.rgb) == picture.width * picture.height * 3
    model = work / "picture.gguf"
    if not model.exists():
        from helpers.small_model import small_model
        from helpers.tiny import write_gguf

        write_gguf(model, small_model())
    captioned = picture.width * picture.height <= 1 << 16
    if captioned:
        if "picture" not in ENGINES:
            ENGINES["picture"] = _core.Engine(str(model), threads=1)
        ENGINES["picture"].encode_image(picture.rgb, picture.width, picture.height)
    return Outcome(accepted=True, captioned=captioned)


ENGINES: dict[str, Any] = {}

TARGETS = {
    "safetensors": Target(make_safetensors, read_weights),
    "torch": Target(make_torch, read_fairseq),
    "torch-state": Target(make_torch, read_weights),
    "index": Target(make_index, run_index),
    "tokenizer-json": Target(
        make_tokenizer_json,
        lambda data, _: run_vocabulary(lambda d: read_tokenizer_json(d, Path("t.json")), data),
    ),
    "sentencepiece": Target(
        make_sentencepiece,
        lambda data, _: run_vocabulary(lambda d: read_sentencepiece(d, Path("s.model"), None), data),
    ),
    "bpe": Target(make_bpe, run_bpe),
    "checkpoint": Target(make_checkpoint, run_checkpoint),
    "requantize": Target(make_gguf, run_requantize),
    "picture": Target(make_picture_case, run_picture),
}
