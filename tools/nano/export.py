"""Writes nano as a Hugging Face `kosmos-2` checkpoint, and reads one back.

    python export.py --run RUN --out DIR                 # from RUN/stage_c.pt

DIR: config.json, generation_config.json, model.safetensors (float32), tokenizer.json, tokenizer_config.json,
preprocessor_config.json, sentencepiece.bpe.model, README.md (the model card). transformers opens it with
AutoProcessor and Kosmos2ForConditionalGeneration; tokenizer.json has the published one's form.
The folder is written beside its place and renamed, so a reader never sees half of one.
"""

import argparse
import base64
import json
import os
import shutil
import struct

import torch
from common import load
from data import MEAN, STD
from model import POSITIONS, Nano, vision_config
from vocabulary import BOS, EOS, MODEL_FILE, PAD, UNK, Vocabulary

CARD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "nano.md")
CARD_HEAD = "---\nlicense: mit\nlanguage: en\npipeline_tag: image-text-to-text\n---\n\n"
TRANSFORMERS = "5.23.0"  # the version whose configuration spelling this follows


# ------------------------------------------------------------------------------------------ tokenizer
def _varint(data, i):
    value = shift = 0
    while True:
        byte = data[i]
        i += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, i
        shift += 7


def _message(data):
    """Fields of a protobuf message as (number, value)"""
    i = 0
    while i < len(data):
        key, i = _varint(data, i)
        kind = key & 7
        if kind == 0:
            value, i = _varint(data, i)
        else:
            size, i = _varint(data, i) if kind == 2 else (4 if kind == 5 else 8, i)
            value = data[i : i + size]
            i += size
        yield key >> 3, value


def charsmap(path):
    """The compiled normalisation table inside a sentencepiece model"""
    with open(path, "rb") as f:
        normalizer = dict(_message(f.read()))[3]
    return dict(_message(normalizer))[2]


def _added(i, content, special, lstrip=False):
    return {
        "id": i,
        "content": content,
        "single_word": False,
        "lstrip": lstrip,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def tokenizer_json(v):
    mask = v.id["<mask>"]
    pieces = [[p, s] for p, s in zip(v.pieces, v.scores, strict=True)]
    vocab = [[t, 0.0] for t in v.tokens[:4]] + pieces + [["<mask>", 0.0]]
    added = [_added(i, v.tokens[i], True) for i in (BOS, PAD, EOS, UNK)] + [_added(mask, "<mask>", True, lstrip=True)]
    added += [_added(i, v.tokens[i], False, lstrip=True) for i in range(mask + 1, len(v))]
    space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}

    def special(t):
        return {"SpecialToken": {"id": t, "type_id": 0}}

    a, b = ({"Sequence": {"id": x, "type_id": 0}} for x in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap(v.path)).decode()},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("<s>"), a, special("</s>")],
            "pair": [special("<s>"), a, special("</s>"), special("</s>"), b, special("</s>")],
            "special_tokens": {t: {"id": t, "ids": [v.id[t]], "tokens": [t]} for t in ("<s>", "</s>")},
        },
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": UNK, "vocab": vocab, "byte_fallback": False},
    }


TOKENIZER_CONFIG = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
    "model_max_length": 1000000000000000019884624838656,
    "padding_side": "right",
    "processor_class": "Kosmos2Processor",
    "tokenizer_class": "XLMRobertaTokenizer",
    "clean_up_tokenization_spaces": True,
}


# ------------------------------------------------------------------------------------------ configuration
def config_json(c, vocabulary):
    vision = vision_config(c)
    return {
        "architectures": ["Kosmos2ForConditionalGeneration"],
        "dtype": "float32",
        "model_type": "kosmos-2",
        "latent_query_num": c["latents"],
        "tie_word_embeddings": True,
        "transformers_version": TRANSFORMERS,
        "text_config": {
            "model_type": "kosmos_2_text_model",
            "vocab_size": vocabulary,
            "max_position_embeddings": POSITIONS,
            "embed_dim": c["dim"],
            "layers": c["text_layers"],
            "ffn_dim": c["ffn"],
            "attention_heads": c["heads"],
            "activation_function": "gelu",
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "activation_dropout": 0.0,
            "layerdrop": 0.0,
            "layer_norm_eps": 1e-05,
            "init_std": 0.02,
            "scale_embedding": True,
            "use_cache": True,
            "add_cross_attention": False,
            "tie_word_embeddings": True,
            "no_repeat_ngram_size": 0,
            "bos_token_id": BOS,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
        },
        "vision_config": {
            "model_type": "kosmos_2_vision_model",
            "hidden_size": vision["dim"],
            "intermediate_size": vision["ffn"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["heads"],
            "num_channels": 3,
            "image_size": c["image"],
            "patch_size": c["patch"],
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-05,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "initializer_factor": 1.0,
        },
    }


GENERATION_CONFIG = {
    "_from_model_config": True,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "no_repeat_ngram_size": 0,
    "max_new_tokens": 128,
    "transformers_version": TRANSFORMERS,
}


def preprocessor_json(size):
    """Without the published file's `use_square_size`: transformers takes that flag to mean 224 x 224"""
    side = {"height": size, "width": size}
    return {
        "crop_size": side,
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": side,
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "Kosmos2Processor",
    }


# ------------------------------------------------------------------------------------------ weights
def write_safetensors(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, t in tensors.items():
        size = t.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for t in tensors.values():
            f.write(t.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())


def read_safetensors(path):
    with open(path, "rb") as f:
        data = bytearray(f.read())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {
        k: torch.frombuffer(
            data,
            dtype=torch.float32,
            offset=start + h["data_offsets"][0],
            count=(h["data_offsets"][1] - h["data_offsets"][0]) // 4,
        )
        .view(h["shape"])
        .clone()
        for k, h in header.items()
    }


def new_model(v, **changes):
    return Nano(len(v), v.id["<image>"], v.id["</image>"], **changes)


def write(out, model, v):
    """Everything into `out`, replacing what was there"""
    tmp = out.rstrip("/") + ".tmp"
    shutil.rmtree(tmp, ignore_errors=True)
    os.makedirs(tmp)

    def dump(name, value, indent=2):
        with open(os.path.join(tmp, name), "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, indent=indent)
            f.write("\n")

    dump("config.json", config_json(model.config, len(v)))
    dump("generation_config.json", GENERATION_CONFIG)
    dump("preprocessor_config.json", preprocessor_json(model.config["image"]))
    dump("tokenizer.json", tokenizer_json(v), indent=None)
    dump("tokenizer_config.json", TOKENIZER_CONFIG)
    shutil.copyfile(v.path, os.path.join(tmp, MODEL_FILE))
    if os.path.exists(CARD):
        with open(CARD, encoding="utf-8") as card, open(os.path.join(tmp, "README.md"), "w", encoding="utf-8") as f:
            f.write(CARD_HEAD + card.read())
    write_safetensors(os.path.join(tmp, "model.safetensors"), model.state_dict())
    old = out.rstrip("/") + ".old"
    if os.path.exists(out):
        shutil.rmtree(old, ignore_errors=True)
        os.rename(out, old)
    os.rename(tmp, out)
    shutil.rmtree(old, ignore_errors=True)


def read(folder):
    """A checkpoint folder -> (model, vocabulary)"""
    v = Vocabulary(os.path.join(folder, MODEL_FILE))
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    t, i = c["text_config"], c["vision_config"]
    model = new_model(
        v,
        config={
            "image": i["image_size"],
            "patch": i["patch_size"],
            "dim": t["embed_dim"],
            "heads": t["attention_heads"],
            "ffn": t["ffn_dim"],
            "latents": c["latent_query_num"],
            "vision_dim": i["hidden_size"],
            "vision_heads": i["num_attention_heads"],
            "vision_ffn": i["intermediate_size"],
            "vision_layers": i["num_hidden_layers"],
            "text_layers": t["layers"],
        },
    )
    model.load_state_dict(read_safetensors(os.path.join(folder, "model.safetensors")))
    return model.eval(), v


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True)
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    v = Vocabulary(os.path.join(a.run, MODEL_FILE))
    model = new_model(v)
    model.load_state_dict(load(os.path.join(a.run, "stage_c.pt"))["model"])
    write(a.out, model, v)
    print(f"{a.out}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(v)} tokens")


if __name__ == "__main__":
    main()
