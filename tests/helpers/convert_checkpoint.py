"""Small KOSMOS-2 checkpoints in every published form, written by hand: no torch, no safetensors, no numpy.

`convert_state` draws the tensors; the `convert_write_*` functions store them as Hugging Face folders (safetensors,
pytorch_model.bin) or as unilm's kosmos-2.pt, with tokenizer.json or sentencepiece.bpe.model + dict.txt beside them.
"""

import array
import base64
import json
import math
import random
import struct
import zipfile
from pathlib import Path

from helpers.charsmaps import make_charsmap
from kosmos_edge.convert.models.kosmos_layout import LOCATION_BINS, SPECIALS, TAGS, layout, location

PATCHES = [location(i) for i in range(LOCATION_BINS**2)]
PIECES = [
    ".",
    "▁the",
    ",",
    "▁to",
    "▁a",
    "s",
    "▁in",
    "▁",
    "▁of",
    "▁An",
    "▁image",
    "▁画像",
    "ж",
    "🙂",
    "'",
    '"',
    "\\",
    "e",
]
CHARSMAP = make_charsmap({"ﬁ".encode(): b"fi", "ﬀ".encode(): b"ff"})
TOKENS = layout(PIECES)
SCORES = [0.0] * 4 + [-1.0 - 0.1 * i for i in range(len(PIECES))] + [0.0] * (1 + len(TAGS) + len(PATCHES))

VOCAB = len(TOKENS)
SIZES = {
    "width": 256,
    "ff": 512,
    "layers": 2,
    "heads": 4,
    "vision": 256,
    "vision_ff": 512,
    "vision_layers": 2,
    "latents": 8,
}
IMAGE, PATCH = 56, 14


def convert_shapes(
    width=256, ff=512, layers=2, vision=256, vision_ff=512, vision_layers=2, latents=8, heads=4, vocab=VOCAB
):
    """Hugging Face's tensor names -> shapes, written down independently of the converter."""
    shapes = {"text_model.model.embed_tokens.weight": (vocab, width)}

    def linear(name, out, inner):
        shapes[name + ".weight"] = (out, inner)
        shapes[name + ".bias"] = (out,)

    def norm(name, size):
        shapes[name + ".weight"] = (size,)
        shapes[name + ".bias"] = (size,)

    for n in range(layers):
        at = f"text_model.model.layers.{n}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{at}.self_attn.{part}", width, width)
        for name, size in (
            ("self_attn.inner_attn_ln", width),
            ("self_attn_layer_norm", width),
            ("final_layer_norm", width),
        ):
            norm(f"{at}.{name}", size)
        linear(f"{at}.ffn.fc1", ff, width)
        linear(f"{at}.ffn.fc2", width, ff)
        norm(f"{at}.ffn.ffn_layernorm", ff)
    norm("text_model.model.layer_norm", width)
    at = "vision_model.model"
    shapes[f"{at}.embeddings.class_embedding"] = (vision,)
    shapes[f"{at}.embeddings.patch_embedding.weight"] = (vision, 3, PATCH, PATCH)
    shapes[f"{at}.embeddings.position_embedding.weight"] = ((IMAGE // PATCH) ** 2 + 1, vision)
    norm(f"{at}.pre_layrnorm", vision)
    norm(f"{at}.post_layernorm", vision)
    for n in range(vision_layers):
        layer = f"{at}.encoder.layers.{n}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}.self_attn.{part}", vision, vision)
        norm(f"{layer}.layer_norm1", vision)
        norm(f"{layer}.layer_norm2", vision)
        linear(f"{layer}.mlp.fc1", vision_ff, vision)
        linear(f"{layer}.mlp.fc2", vision, vision_ff)
    shapes["image_to_text_projection.latent_query"] = (latents, width)
    linear("image_to_text_projection.dense", width, vision)
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
        linear(f"image_to_text_projection.x_attn.{part}", width, width)
    return shapes


def convert_state(seed=0, **sizes):
    """Tensor name -> (shape, float32 little-endian bytes). Values are k / 2^14, |k| < 2^10: exact in F16 too."""
    source = random.Random(seed)
    state = {}
    for name, shape in convert_shapes(**sizes).items():
        count = math.prod(shape)
        raw = array.array("H", source.randbytes(2 * count))
        state[name] = (shape, array.array("f", [((v & 2047) - 1024) / 16384 for v in raw]).tobytes())
    return state


def convert_cast(data: bytes, dtype: str) -> bytes:
    """Float32 bytes as F32, F16 or BF16 (by truncation) bytes."""
    if dtype == "F32":
        return data
    if dtype == "BF16":
        return array.array("H", array.array("H", data)[1::2]).tobytes()
    return struct.pack(f"<{len(data) // 4}e", *array.array("f", data))


def convert_config(**changes):
    """config.json of the small model."""
    config = {
        "model_type": "kosmos-2",
        "latent_query_num": SIZES["latents"],
        "text_config": {
            "vocab_size": len(TOKENS),
            "embed_dim": SIZES["width"],
            "layers": SIZES["layers"],
            "ffn_dim": SIZES["ff"],
            "attention_heads": SIZES["heads"],
            "no_repeat_ngram_size": 3,
        },
        "vision_config": {
            "hidden_size": SIZES["vision"],
            "intermediate_size": SIZES["vision_ff"],
            "num_hidden_layers": SIZES["vision_layers"],
            "num_attention_heads": SIZES["heads"],
            "image_size": IMAGE,
            "patch_size": PATCH,
        },
    }
    for key, value in changes.items():
        section, _, field = key.rpartition("__")
        (config[section] if section else config)[field] = value
    return config


# ---- safetensors


def convert_safetensors_bytes(state, dtype="F32") -> bytes:
    """A safetensors file of that state."""
    header, at, parts = {"__metadata__": {"format": "pt"}}, 0, []
    for name, (shape, data) in state.items():
        parts.append(convert_cast(data, dtype))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(parts[-1])]}
        at += len(parts[-1])
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(parts)


# ---- pickles of torch.save


class Raw(bytes):
    """Opcodes that stand for a value as they are."""


def op_global(module: str, name: str) -> Raw:
    return Raw(b"c" + f"{module}\n{name}\n".encode())


def op_call(function: Raw, *arguments, opcode=b"R") -> Raw:
    """REDUCE (or another opcode) of a global with a tuple of arguments."""
    return Raw(function + op_value(tuple(arguments)) + opcode)


def op_build(target: Raw, state) -> Raw:
    return Raw(target + op_value(state) + b"b")


def op_value(value) -> bytes:
    """Opcodes of protocol 2 for plain data; Raw passes through."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None:
        return b"N"
    if value is True or value is False:
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if 0 <= value < 256:
            return b"K" + bytes([value])
        size = value.bit_length() // 8 + 1
        return (
            struct.pack("<Bi", 0x4A, value)
            if size <= 4
            else bytes([0x8A, size]) + value.to_bytes(size, "little", signed=True)
        )
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, tuple):
        return b"(" + b"".join(map(op_value, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(op_value, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(op_value(k) + op_value(v) for k, v in value.items()) + b"u"
    raise TypeError(type(value))


def op_pickle(value) -> bytes:
    """A whole pickle of protocol 2."""
    return b"\x80\x02" + op_value(value) + b"."


STORAGE = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}


def op_storage(key: str, dtype: str, count: int) -> Raw:
    return Raw(op_value(("storage", op_global("torch", STORAGE[dtype]), key, "cpu", count)) + b"Q")


def op_tensor(key: str, dtype: str, shape, count=None, offset=0, strides=None) -> Raw:
    """torch._utils._rebuild_tensor_v2 as torch.save writes it."""
    if strides is None:
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    storage = op_storage(key, dtype, math.prod(shape) if count is None else count)
    hooks = op_call(op_global("collections", "OrderedDict"))
    return op_call(
        op_global("torch._utils", "_rebuild_tensor_v2"), storage, offset, tuple(shape), strides, False, hooks
    )


def op_ordered(items: dict) -> Raw:
    """An OrderedDict with attributes, as nn.Module.state_dict() is saved."""
    body = b"(" + b"".join(op_value(k) + op_value(v) for k, v in items.items()) + b"u"
    return op_build(Raw(op_call(op_global("collections", "OrderedDict")) + body), {"_metadata": {}})


def convert_zip_bytes(path: Path, pickle: bytes, records: dict[str, bytes], prefix="archive", extra=()) -> None:
    """The container of torch.save."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{prefix}/data.pkl", pickle)
        archive.writestr(f"{prefix}/byteorder", b"little")
        for key, data in records.items():
            archive.writestr(f"{prefix}/data/{key}", data)
        archive.writestr(f"{prefix}/version", b"3\n")
        for name, data in extra:
            archive.writestr(f"{prefix}/{name}", data)


def convert_torch_state(state, dtype="F32"):
    """-> (name -> opcodes of its tensor, records); every tensor has its own storage."""
    tensors, records = {}, {}
    for i, (name, (shape, data)) in enumerate(state.items()):
        records[str(i)] = convert_cast(data, dtype)
        tensors[name] = op_tensor(str(i), dtype, shape)
    return tensors, records


def convert_unilm_name(name: str) -> str:
    """Hugging Face's tensor name -> unilm's, written down independently of the converter."""
    if name.startswith("text_model.model."):
        return "gpt_model.decoder." + name.removeprefix("text_model.model.")
    if name.startswith("image_to_text_projection."):
        return "img_connector." + name.removeprefix("image_to_text_projection.")
    name = "img_model.visual." + name.removeprefix("vision_model.model.")
    for new, old in (
        ("embeddings.class_embedding", "class_embedding"),
        ("embeddings.patch_embedding", "conv1"),
        ("embeddings.position_embedding.weight", "positional_embedding"),
        ("pre_layrnorm", "ln_pre"),
        ("post_layernorm", "ln_post"),
        ("encoder.layers", "transformer.resblocks"),
        ("self_attn", "ts_attn"),
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    ):
        name = name.replace(new, old)
    return name


# ---- vocabularies


def convert_tokenizer_json(pieces=PIECES, scores=None, charsmap=CHARSMAP) -> dict:
    """tokenizer.json as the published one is built."""
    scores = SCORES[4 : 4 + len(pieces)] if scores is None else scores
    vocab = [[t, 0.0] for t in SPECIALS]
    vocab += [[p, s] for p, s in zip(pieces, scores, strict=True)]
    vocab += [["<mask>", 0.0]]
    added = [{"id": i, "content": t, "special": True} for i, t in enumerate(SPECIALS)]
    added += [{"id": len(vocab) - 1 + i, "content": t} for i, t in enumerate(["<mask>", *TAGS, *PATCHES])]
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()},
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False},
    }


def _varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def _field(number: int, kind: int, data: bytes) -> bytes:
    return _varint(number << 3 | kind) + (_varint(len(data)) if kind == 2 else b"") + data


def convert_sentencepiece_bytes(pieces=PIECES, scores=None, charsmap=CHARSMAP, model_type=1, kinds=None) -> bytes:
    """A sentencepiece model (protobuf): pieces, trainer_spec.model_type, normalizer_spec.precompiled_charsmap."""
    scores = SCORES[4 : 4 + len(pieces)] if scores is None else scores
    rows = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    rows += [(p, s, 1 if kinds is None else kinds[i]) for i, (p, s) in enumerate(zip(pieces, scores, strict=True))]
    out = b""
    for piece, score, kind in rows:
        body = _field(1, 2, piece.encode()) + _field(2, 5, struct.pack("<f", score))
        if kind != 1:
            body += _field(3, 0, _varint(kind))
        out += _field(1, 2, body)
    out += _field(2, 2, _field(3, 0, _varint(model_type)))
    return out + _field(3, 2, _field(1, 2, b"nmt_nfkc") + _field(2, 2, charsmap))


# ---- whole checkpoints


def convert_write_settings(folder: Path, **changes) -> Path:
    """config.json, generation_config.json, preprocessor_config.json, tokenizer.json in a new or existing folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(convert_config(**changes)))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "no_repeat_ngram_size": 3}))
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_size": {"height": IMAGE, "width": IMAGE},
                "size": {"height": IMAGE, "width": IMAGE},
                "resample": 3,
                "rescale_factor": 0.00392156862745098,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "use_square_size": True,
            }
        )
    )
    (folder / "tokenizer.json").write_text(json.dumps(convert_tokenizer_json()), encoding="utf-8")
    return folder


def convert_write_hf(folder: Path, state, dtype="F32", **changes) -> Path:
    """A folder with model.safetensors."""
    convert_write_settings(folder, **changes)
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, dtype))
    return folder


def convert_write_bin(folder: Path, state, dtype="F32") -> Path:
    """A folder with pytorch_model.bin: parameters in an OrderedDict, the head tied by sharing the storage."""
    convert_write_settings(folder)
    tensors, records = convert_torch_state(state, dtype)
    parameter = op_global("torch._utils", "_rebuild_parameter")
    hooks = op_call(op_global("collections", "OrderedDict"))
    tensors = {name: op_call(parameter, tensor, True, hooks) for name, tensor in tensors.items()}
    tensors["text_model.lm_head.weight"] = tensors["text_model.model.embed_tokens.weight"]
    convert_zip_bytes(folder / "pytorch_model.bin", op_pickle(op_ordered(tensors)), records)
    return folder


def convert_write_fairseq(folder: Path, state, dtype="F32", name="kosmos-2.pt") -> Path:
    """A folder with kosmos-2.pt as fairseq saves it: settings objects of unknown classes, two buffers of no use."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentencepiece.bpe.model").write_bytes(convert_sentencepiece_bytes())
    (folder / "dict.txt").write_text("".join(f"{piece} 1\n" for piece in PIECES), encoding="utf-8")
    tensors, records = convert_torch_state({convert_unilm_name(k): v for k, v in state.items()}, dtype)
    tensors["gpt_model.decoder.output_projection.weight"] = tensors["gpt_model.decoder.embed_tokens.weight"]
    records["float"], records["sope"] = convert_cast(bytes(4), dtype), convert_cast(bytes(64), dtype)
    tensors["gpt_model.decoder.embed_positions._float_tensor"] = op_tensor("float", dtype, (1,))
    tensors["gpt_model.decoder.self_attn_sope.scale"] = op_tensor("sope", dtype, (16,))
    args = op_build(
        op_call(op_global("argparse", "Namespace"), opcode=b"\x81"),
        {"arch": "unigptmodel_xl", "decoder_attention_heads": SIZES["heads"], "no_repeat_ngram_size": 3},
    )
    omega = op_build(
        op_call(op_global("omegaconf.dictconfig", "DictConfig"), opcode=b"\x81"), {"_content": {"a": [1, 2.5]}}
    )
    root = {
        "args": args,
        "cfg": {"common": omega, "model": args},
        "model": op_ordered(tensors),
        "criterion": None,
        "optimizer_history": [{"optimizer_name": "FP16Optimizer", "num_updates": 1 << 40}],
        "extra_state": {"metrics": op_call(op_global("fairseq.logging.meters", "AverageMeter"), 3)},
        "last_optimizer_state": None,
    }
    convert_zip_bytes(folder / name, op_pickle(root), records, prefix="kosmos-2")
    return folder
