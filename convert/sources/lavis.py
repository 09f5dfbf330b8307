"""MiniGPT-4 and MiniGPT-v2 as their authors publish them, in places that belong in one folder: EVA-CLIP's tower
(eva_vit_g.pth), the language model in Hugging Face's layout (vicuna/ or llama/), and of MiniGPT-4 with Vicuna LAVIS'
Q-Former and the product behind it (two more .pth, of any names), of MiniGPT-v2 and MiniGPT-4 with LLaMA-2 the trained
tensors alone (one more .pth).

These files say nothing of sizes that are not those of a tensor, which their code has. A config.json beside them may.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kosmos_edge.errors import ModelCorrupt, ModelNotFound

from .checkpoint import Checkpoint
from .files import Folder, SourceFile, read_json
from .hf import open_hf
from .tensor import OneTensor, SourceTensor, ZeroTensor
from .tokenizer_files import TokenizerFiles
from .weights import read_torch, sniff

TOWER, LANGUAGE_MODELS = "eva_vit_g.pth", ("vicuna", "llama")
_LORA = re.compile(
    r"llama_model\.base_model\.model\.(?P<name>model\.layers\.\d+\.[a-z_.]+)\.lora_(?P<part>[AB])(\.default)?\.weight"
)
_TOWER_NAMES = (  # substrings, replaced in this order
    ("cls_token", "embeddings.class_embedding"),
    ("pos_embed", "embeddings.position_embedding"),
    ("patch_embed.proj", "embeddings.patch_embedding"),
    ("blocks.", "encoder.layers."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    ("attn.proj.", "self_attn.projection."),
    ("attn.qkv.weight", "self_attn.qkv.weight"),
    ("attn.q_bias", "self_attn.q.bias"),
    ("attn.v_bias", "self_attn.v.bias"),
)
_BRIDGE_NAMES = (
    ("ln_vision.", "vision_model.post_layernorm."),
    ("Qformer.bert.embeddings.LayerNorm.", "qformer.layernorm."),
    ("Qformer.bert.encoder.", "qformer.encoder."),
    ("attention.self.", "attention.attention."),
)
# Of the tower's last block and head, and of the Q-Former's text, which this model does not have.
_UNUSED_TOWER = ("norm.", "fc_norm.", "head.")
_USED_BRIDGE = re.compile(
    r"query_tokens|ln_vision\.\w+|Qformer\.bert\.(embeddings\.LayerNorm\.\w+"
    r"|encoder\.layer\.\d+\.((cross)?attention\..*|(intermediate|output)_query\..*))"
)


def is_lavis(folder: Folder) -> bool:
    """Whether a folder holds these files."""
    return folder.has(TOWER)


def open_lavis(folder: Folder, tokenizer: Path | None) -> Checkpoint:
    """The checkpoint in `folder` under transformers' names of BLIP-2."""
    language = next((found for name in LANGUAGE_MODELS if (found := folder.inner(name)) is not None), None)
    if language is None:
        raise ModelNotFound(
            f"no folder {folder.path / LANGUAGE_MODELS[0]} or {LANGUAGE_MODELS[1]}: put the language model "
            "(config.json, its tokenizer and the weights, in Hugging Face's layout) there"
        )
    names = sorted(path.name for path in folder.path.iterdir() if path.suffix == ".pth" and path.name != TOWER)
    if len(names) not in (1, 2):
        raise _other_files(folder, names)
    text = open_hf(language, None)
    files, text.files = text.files, []  # this checkpoint closes them
    try:
        opened = [folder.open(name) for name in (TOWER, *names)]
        files += opened
        settings: dict[str, Any] = {}
        if folder.has("config.json"):
            files.append(folder.open("config.json"))
            settings = read_json(files[-1])
        card: dict[str, Any] = {}
        if folder.has("kosmos_edge.json"):
            files.append(folder.open("kosmos_edge.json"))
            card = read_json(files[-1])
        language_tensors = {_language_name(name): tensor for name, tensor in text.tensors.items()}
        tower = dict(_tower(opened[0]))
        if len(names) == 1:
            trained = _inner(opened[1])
            if not _merges_features(tower, trained):
                raise _other_files(folder, names)
            rank = _lora_rank(trained)
            kind = {"model_type": "minigpt_v2", "lora_r": rank}
            tensors = {**tower, **_trained(trained, tower), **language_tensors}
        else:
            bridge, product = (_inner(file) for file in opened[1:])
            if "query_tokens" not in bridge:
                bridge, product = product, bridge
            if "query_tokens" not in bridge:
                raise ModelCorrupt(f"{folder.path}: neither {names[0]} nor {names[1]} has the Q-Former's query_tokens")
            kind = {"model_type": "lavis"}
            tensors = {**tower, **_bridge(bridge), **_product(product), **language_tensors}
        return Checkpoint(
            format="lavis",
            tensors=tensors,
            config={**settings, **kind, "text_config": text.config},
            generation={},
            preprocessor={},
            card=card,
            tokenizer=TokenizerFiles(language, tokenizer, files),
            folder=folder,
            files=files,
        )
    except BaseException:
        for file in files:
            file.close()
        raise


def _other_files(folder: Folder, names: list[str]) -> ModelNotFound:
    return ModelNotFound(
        f"{folder.path}: beside {TOWER} there are {', '.join(names) or 'no .pth files'}; expected two: "
        "the pretrained Q-Former (query_tokens) and the trained product (llama_proj), or, of MiniGPT-v2 and of "
        "MiniGPT-4 with LLaMA-2, one: the trained product, whose rows are four of the tower's"
    )


def _merges_features(tower: dict[str, SourceTensor], trained: dict[str, SourceTensor]) -> bool:
    """Whether the product's rows are several of the tower's, side by side: then there is no Q-Former between."""
    product, patches = trained.get("llama_proj.weight"), tower.get("vision_model.embeddings.patch_embedding.weight")
    if product is None or patches is None or len(product.shape) != 2 or not patches.shape:
        return False
    return product.shape[1] > patches.shape[0] and product.shape[1] % patches.shape[0] == 0


def _lora_rank(trained: dict[str, SourceTensor]) -> int:
    """0 where the language model is as it was."""
    ranks = {t.shape[0] for n, t in trained.items() if (m := _LORA.fullmatch(n)) and m["part"] == "A" and t.shape}
    if len(ranks) > 1:
        where = next(iter(trained.values())).file.path
        raise ModelCorrupt(f"{where}: low-rank changes of the ranks {sorted(ranks)}, expected one rank")
    return next(iter(ranks), 0)


def _trained(trained: dict[str, SourceTensor], tower: dict[str, SourceTensor]) -> dict[str, SourceTensor]:
    """The product, the low-rank changes of the language model (under its tensors' names), and the tower's last norm,
    which nobody trained where it is not there: ones and zeros."""
    found: dict[str, SourceTensor] = {}
    for name, tensor in trained.items():
        lora = _LORA.fullmatch(name)
        if lora is not None:
            found[_language_name(f"{lora['name']}.lora_{lora['part']}")] = tensor
        elif name.startswith("llama_proj."):
            found[name.replace("llama_proj.", "language_projection.")] = tensor
        elif name.startswith("ln_vision."):
            found[name.replace("ln_vision.", "vision_model.post_layernorm.")] = tensor
        elif not name.endswith(".rotary_emb.inv_freq"):
            raise ModelCorrupt(
                f"{tensor.file.path}: {name} {tensor.shape} is none of MiniGPT-v2's trained tensors: "
                "llama_proj, low-rank changes of llama_model, ln_vision"
            )
    beside = tower["vision_model.embeddings.patch_embedding.weight"]
    for part, kind in (("weight", OneTensor), ("bias", ZeroTensor)):
        name = f"vision_model.post_layernorm.{part}"
        found.setdefault(name, kind(f"ln_vision.{part}", "F32", beside.shape[:1], beside.file, beside.offset))
    return found


def _inner(file: SourceFile) -> dict[str, SourceTensor]:
    """The tensors of a file {"model": state dict, ...}."""
    torch_file = read_torch(file, sniff(file))
    root = torch_file.root
    if not isinstance(root, dict) or not isinstance(root.get("model"), dict):
        raise ModelCorrupt(f"{file.path}: expected a dict with the tensors under 'model'")
    return torch_file.tensors(root["model"], "model")


def _tower(file: SourceFile) -> Iterator[tuple[str, SourceTensor]]:
    torch_file = read_torch(file, sniff(file))
    for name, tensor in torch_file.tensors(torch_file.root, "the top level").items():
        if name.startswith(_UNUSED_TOWER):
            continue
        known = "vision_model." + _renamed(name, _TOWER_NAMES)
        yield known, tensor
        if name.endswith("attn.q_bias"):  # keys have none
            zeros = ZeroTensor(name.replace("q_bias", "k_bias"), tensor.dtype, tensor.shape, tensor.file, tensor.offset)
            yield known.replace(".q.bias", ".k.bias"), zeros


def _bridge(tensors: dict[str, SourceTensor]) -> dict[str, SourceTensor]:
    return {_renamed(name, _BRIDGE_NAMES): tensor for name, tensor in tensors.items() if _USED_BRIDGE.fullmatch(name)}


def _product(tensors: dict[str, SourceTensor]) -> dict[str, SourceTensor]:
    names = {f"llama_proj.{kind}": f"language_projection.{kind}" for kind in ("weight", "bias")}
    if set(tensors) != set(names):
        where = next(iter(tensors.values())).file.path
        lora = ": it changes the language model, too (MiniGPT-v2)" if any("lora" in name for name in tensors) else ""
        raise ModelCorrupt(
            f"{where}: {len(tensors)} tensors, expected llama_proj.weight and llama_proj.bias alone{lora}"
        )
    return {names[name]: tensor for name, tensor in tensors.items()}


def _language_name(name: str) -> str:
    return f"language_model.{name}"


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for old, new in rules:
        name = name.replace(old, new)
    return name
