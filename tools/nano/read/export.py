"""Writes nano-read as a Hugging Face `kosmos-2.5` checkpoint, and reads a training state.

    python -m read.export --run RUN --out DIR            # the averaged weights of RUN/state.pt; --raw: the last ones

DIR: config.json, generation_config.json, model.safetensors (float32), tokenizer.json, tokenizer_config.json,
preprocessor_config.json, processor_config.json, kosmos_edge.json, README.md (docs/nano-read.md). transformers opens it
with AutoProcessor, to which max_patches has to be said in every call, and Kosmos2_5ForConditionalGeneration.
"""

import argparse
import json
import os
import shutil

import torch
from export import CARD_HEAD, TRANSFORMERS, write_safetensors

from read.cells import cells
from read.model import Read
from read.paint import PATCH
from read.vocabulary import BOS, EOS, PAD, PATTERN, Vocabulary

HERE = os.path.dirname(os.path.abspath(__file__))
CARD = os.path.join(HERE, "..", "..", "..", "docs", "nano-read.md")
MOST_TOKENS = 1024  # of an answer, unless the caller says otherwise


def load_state(path, raw=False):
    """(model with the averaged weights, or the last ones; vocabulary; where the training stands)"""
    state = torch.load(path, map_location="cpu", weights_only=True)
    v = Vocabulary()
    model = Read(state["config"], v.base, (len(v) - v.base) // 2)
    weights = dict(state["net"])
    if not raw:
        weights |= state["average"]
    model.load_state_dict({k.removeprefix("read."): w for k, w in weights.items() if k.startswith("read.")})
    return model.eval(), v, state["at"]


# ------------------------------------------------------------------------------------------ files
def tokenizer_json(v):
    hidden = {"<s>", "<pad>", "</s>", "<unk>", "<mask>", "<ocr>", "<image>", "</image>", "</chunk>", "<md>"}
    pieces = v.base - 8  # bytes and merges end here; then <mask> and the tags
    added = [
        {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": t in hidden}
        for i, t in enumerate(v.tokens) if i < 4 or i >= pieces
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {t: i for i, t in enumerate(v.tokens)}, "merges": [list(pair) for pair in v.merges],
        },
    }  # fmt: skip


TOKENIZER_CONFIG = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "extra_special_tokens": {"image_token": "<s>", "boi_token": "<image>", "eoi_token": "</image>"},
    "model_max_length": 1000000000000000019884624838656,
    "padding_side": "right",
    "processor_class": "Kosmos2_5Processor",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
}
GENERATION_CONFIG = {
    "_from_model_config": True,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "no_repeat_ngram_size": 0,
    "max_new_tokens": MOST_TOKENS,
    "transformers_version": TRANSFORMERS,
}


def config_json(c, vocabulary):
    return {
        "architectures": ["Kosmos2_5ForConditionalGeneration"],
        "dtype": "float32",
        "model_type": "kosmos-2.5",
        "latent_query_num": len(cells(c["max_patches"])),
        "tie_word_embeddings": True,
        "transformers_version": TRANSFORMERS,
        "text_config": {
            "model_type": "kosmos_2_5_text_model",
            "vocab_size": vocabulary,
            "max_position_embeddings": 2048,
            "embed_dim": c["dim"],
            "layers": c["layers"],
            "ffn_dim": c["ffn"],
            "attention_heads": c["heads"],
            "activation_function": "gelu",
            "dropout": 0.1,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            "layerdrop": 0.0,
            "layer_norm_eps": 1e-05,
            "init_std": 0.02,
            "scale_embedding": True,
            "use_cache": True,
            "tie_word_embeddings": True,
            "no_repeat_ngram_size": 0,
            "bos_token_id": BOS,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
        },
        "vision_config": {
            "model_type": "kosmos_2_5_vision_model",
            "hidden_size": c["vision_dim"],
            "patch_embed_hidden_size": 3 * PATCH * PATCH,
            "intermediate_size": c["vision_ffn"],
            "head_dim": c["vision_dim"] // c["vision_heads"],
            "num_hidden_layers": c["vision_layers"],
            "num_attention_heads": c["vision_heads"],
            "dense_act_fn": "gelu_new",
            "layer_norm_eps": 1e-06,
            "dropout_rate": 0.0,
            "attention_dropout": 0.0,
            "max_num_patches": c["max_patches"],
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
        },
    }


def preprocessor_json(max_patches):
    return {
        "image_processor_type": "Kosmos2_5ImageProcessor",
        "processor_class": "Kosmos2_5Processor",
        "do_normalize": True,
        "do_convert_rgb": True,
        "max_patches": max_patches,
        "patch_size": {"height": PATCH, "width": PATCH},
    }


def tensors(model):
    """The checkpoint's tensors by name: the model's own, with the places of the embedding written out"""
    out = {k: t for k, t in model.state_dict().items() if k != "place_map"}
    table = model.embedding_table().detach().clone()
    table[PAD] = 0
    out["text_model.model.embed_tokens.weight"] = table
    return out


def write(out, model, v):
    """Everything into `out`, which is replaced as a whole"""
    tmp = out.rstrip("/") + ".tmp"
    shutil.rmtree(tmp, ignore_errors=True)
    os.makedirs(tmp)

    def dump(name, value, indent=2):
        with open(os.path.join(tmp, name), "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, indent=indent)
            f.write("\n")

    dump("config.json", config_json(model.config, len(v)))
    dump("generation_config.json", GENERATION_CONFIG)
    dump("preprocessor_config.json", preprocessor_json(model.config["max_patches"]))
    slots = len(cells(model.config["max_patches"]))
    dump("processor_config.json", {"processor_class": "Kosmos2_5Processor", "num_image_tokens": slots})
    dump("tokenizer.json", tokenizer_json(v), indent=None)
    dump("tokenizer_config.json", TOKENIZER_CONFIG)
    shutil.copyfile(os.path.join(HERE, "kosmos_edge.json"), os.path.join(tmp, "kosmos_edge.json"))
    if os.path.exists(CARD):
        with open(CARD, encoding="utf-8") as card, open(os.path.join(tmp, "README.md"), "w", encoding="utf-8") as f:
            f.write(CARD_HEAD + card.read())
    write_safetensors(os.path.join(tmp, "model.safetensors"), tensors(model))
    old = out.rstrip("/") + ".old"
    if os.path.exists(out):
        shutil.rmtree(old, ignore_errors=True)
        os.rename(out, old)
    os.rename(tmp, out)
    shutil.rmtree(old, ignore_errors=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True)
    ap.add_argument("--state", default="state.pt", help="a file of RUN")
    ap.add_argument("--raw", action="store_true")
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    model, v, at = load_state(os.path.join(a.run, a.state), a.raw)
    write(a.out, model, v)
    count = sum(t.numel() for t in tensors(model).values())
    print(f"{a.out}: {count:,} parameters, {len(v)} tokens, after {at['pictures']:,} pictures")


if __name__ == "__main__":
    main()
