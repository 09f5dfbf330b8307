"""LLaVA: CLIP's tower up to an inner layer, a linear or MLP projector, a LLaMA decoder. TinyLLaVA is the same with
fewer KV heads.

Two layouts: transformers' LlavaForConditionalGeneration (names of old and new versions), and the authors' own, whose
tower is CLIP's checkpoint in the folder `vision_tower` beside the weights. Rows of queries and keys stay in their
order: the halves of a head are turned together.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

from ..card import general_entries, read_card
from ..generation import generation_entries
from ..gguf import Entry
from ..mapping import check_tensors_of
from ..settings import Section
from ..sources.checkpoint import Checkpoint
from ..sources.files import brief
from ..sources.hf import open_hf
from ..sources.tensor import SourceTensor
from ..spm_bpe import SpmBpe, read_spm_bpe
from ..tokenizer import CONTROL, UNKNOWN, USER_DEFINED
from .clip import Tower, check_crop, expect, read_pixels, tower_entries, tower_table, weight_and_bias
from .llama import Decoder, cut_rows, decoder_entries, decoder_of, decoder_table, give_own_head, read_decoder

NAME, ARCHITECTURE = "LLaVA", "llava"
FOLDS = True  # nothing but matrices reads what a norm of a block gives
IGNORED = (".position_ids", ".rotary_emb.inv_freq")  # buffers that some versions of transformers stored
TOWER = "vision_tower.vision_model."
TIED: dict[str, str] = {}  # fit sees to it

_SYSTEM = "A chat between a curious {0} and an artificial intelligence assistant. "
_SYSTEM += "The assistant gives helpful, detailed, and polite answers to the {0}'s questions. "
PROMPTS = {
    "system": _SYSTEM.format("user"),
    "caption": "USER: {image}\nProvide a one-sentence caption for the provided image. ASSISTANT:",
    "caption_detailed": "USER: {image}\nDescribe this image in detail. ASSISTANT:",
    "question": "USER: {image}\n{question} ASSISTANT:",
}
CARD = {
    "name": "LLaVA",
    "basename": "LLaVA",
    "version": "v1.5",
    "size_label": "",  # counted
    "description": "LLaVA: captions and answers from pictures; vision, projector and decoder in one file",
    "license": "other",  # that of its language model: kosmos_edge.json may say which
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
_FIRST = {"version": "v1", "system": _SYSTEM.format("human")}  # of models with a linear projector
_STOP = "###"  # ends a turn of version v0, of which no file but the card says that it is one
_PROMPTS_V0 = {
    "system": _FIRST["system"].rstrip(),
    **{
        task: text.replace("USER: ", f"{_STOP}Human: ").replace(" ASSISTANT:", f"{_STOP}Assistant:")
        for task, text in PROMPTS.items()
        if task != "system"
    },
}
_MARKS = ("<im_start>", "<im_end>")  # around an image, of models with mm_use_im_start_end
_TOWER = "vision_tower"  # folder with CLIP's checkpoint
_MAX_NEW_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Config(Decoder):
    """The sizes of a model."""

    tower: Tower | None  # None until the folder with it is read
    feature_layer: int  # -1: behind the last block, -2: behind the one before it; of several the deepest
    feature_layers: tuple[int, ...] = ()  # whose features stand side by side; empty: feature_layer alone
    projector: str  # "linear" or "mlp2x_gelu"
    aspect: str | None  # "pad" or "crop"; None: as preprocessor_config.json says
    image_id: int | None  # of the image's placeholder; None: the vocabulary has none

    @property
    def vision(self) -> Tower:
        assert self.tower is not None
        return self.tower

    @property
    def features(self) -> int:
        """Values of a feature."""
        return self.vision.width * max(1, len(self.feature_layers))

    @property
    def blocks(self) -> int:
        """Blocks of the tower that run."""
        return self.vision.layers + 1 + self.feature_layer


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is LLaVA's."""
    return settings.get("model_type") in ("llava", "llava_llama")


# ---- config.json


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json of either layout."""
    whole = Section(settings, "")
    if _is_own(settings):
        return _read_own(whole)
    text = Section(settings.get("text_config") or {}, "text_config")
    text.only("model_type", "llama")
    whole.only("projector_hidden_act", "gelu")
    whole.only("multimodal_projector_bias", True)
    whole.only("vision_feature_select_strategy", "default")
    vision = settings.get("vision_config")
    tower = _large(336) if vision is None else read_tower(Section(vision, "vision_config"))
    image_id = read_image_id(whole)
    decoder = read_decoder(text, bool(whole.only("tie_word_embeddings", False, True)))
    layers = read_feature_layers(whole, "vision_feature_layer", tower)
    return Config(
        **vars(decoder),
        tower=tower,
        feature_layer=max(layers),
        feature_layers=layers if len(layers) > 1 else (),
        projector="mlp2x_gelu",
        aspect=None,
        image_id=image_id,
    )


def read_image_id(whole: Section) -> int:
    """The id of the image's placeholder."""
    image_id = whole.get("image_token_index", whole.get("image_token_id", 32000))
    if type(image_id) is not int or image_id < 0:
        raise whole.bad("image_token_index", "a token id")
    return image_id


def _is_own(settings: dict[str, Any]) -> bool:
    """Whether a config.json is of the authors' layout."""
    return "text_config" not in settings and any(key.startswith("mm_") for key in settings)


def _read_own(whole: Section) -> Config:
    """The authors' config.json: LLaMA's keys, and mm_* for the rest. The tower's sizes come with its checkpoint."""
    aspect = whole.only("image_aspect_ratio", "square", "pad")  # not "anyres", which is LLaVA-1.6
    whole.only("mm_patch_merge_type", "flat")
    whole.only("mm_use_im_start_end", False, True)
    whole.only("mm_vision_select_feature", "patch")
    layer = whole.get("mm_vision_select_layer", -2)
    if type(layer) is not int:
        raise whole.bad("mm_vision_select_layer", "a number")
    return Config(
        **vars(read_decoder(whole)),
        tower=None,
        feature_layer=layer,
        projector=whole.only("mm_projector_type", "linear", "mlp2x_gelu"),
        aspect="pad" if aspect == "pad" else "crop",
        image_id=None,
    )


def read_tower(vision: Section) -> Tower:
    """The sizes of CLIP's tower."""
    vision.only("model_type", "clip_vision_model")
    vision.only("hidden_act", "quick_gelu")
    vision.only("num_channels", 3)
    tower = Tower(
        width=vision.whole("hidden_size", 768),
        layers=vision.whole("num_hidden_layers", 12, 1000),
        ff_width=vision.whole("intermediate_size", 3072),
        heads=vision.whole("num_attention_heads", 12),
        eps=vision.real("layer_norm_eps", 1e-5, 0, 1),
        image_size=vision.whole("image_size", 224),
        patch_size=vision.whole("patch_size", 32),
    )
    if tower.width % tower.heads or tower.image_size % tower.patch_size:
        raise ModelCorrupt(
            f"config.json: {vision.name}hidden_size {tower.width} is no multiple of {tower.heads} heads, "
            f"or image_size {tower.image_size} none of patch_size {tower.patch_size}"
        )
    return tower


def _large(image_size: int) -> Tower:
    """CLIP's ViT-L/14."""
    return Tower(1024, 24, 4096, 16, 1e-5, image_size, 14)


_KNOWN_TOWERS = {"openai/clip-vit-large-patch14": _large(224), "openai/clip-vit-large-patch14-336": _large(336)}


def read_feature_layers(section: Section, key: str, tower: Tower) -> tuple[int, ...]:
    """The layers that the features are of, one or several side by side, as numbers from the end."""
    value = section.get(key, -2)
    given = value if isinstance(value, list) else [value]
    layers = [v - tower.layers - 1 if type(v) is int and v >= 0 else v for v in given]
    if not layers or any(type(v) is not int or not -tower.layers <= v <= -1 for v in layers):
        raise section.bad(key, f"a layer, or a list of them, {-tower.layers}..-1 or 1..{tower.layers}")
    return tuple(layers)


# ---- tensors

_PREFIXES = (  # in checkpoints -> in the table; the first that fits
    ("model.vision_tower.vision_tower.", "vision_tower."),  # the authors', where the tower was trained, too
    ("model.vision_tower.", "vision_tower."),  # transformers 5
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),  # the authors'
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.mm_projector.", "multi_modal_projector.linear_1."),
    ("model.language_model.", "language_model.model."),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    yield from decoder_table(c)
    yield from tower_table(c.vision, TOWER, c.blocks, post_norm=False)
    yield from projector_table(c)


def projector_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The projector's rows."""
    yield from weight_and_bias("multi_modal_projector.linear_1", "mm.0", c.width, c.features)
    if c.projector != "linear":
        yield from weight_and_bias("multi_modal_projector.linear_2", "mm.2", c.width, c.width)


def fit(checkpoint: Checkpoint, config: Config, vocabulary: SpmBpe) -> Config:
    """Brings the tensors of any layout under the table's names, without those that nothing computes with.

    These are the tower's blocks behind the feature layer and its last norm, and rows of the embedding that only pad it.
    A head that is tied to the embedding is stored like one of its own.
    """
    tensors = published_names(checkpoint.tensors)
    give_own_head(tensors, config)
    if config.tower is None:
        config = _join_tower(checkpoint, config, tensors)
    checkpoint.tensors = tensors = without_unused(tensors, config)
    return cut_rows(tensors, config, len(vocabulary.tokens), vocabulary.where)


def without_unused(tensors: dict[str, SourceTensor], c: Config) -> dict[str, SourceTensor]:
    """Without what is behind the tower's feature layer."""
    unused = [f"{TOWER}encoder.layers.{n}." for n in range(c.blocks, c.vision.layers)]
    unused += [TOWER + "post_layernorm.", TOWER + "head."]
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(unused))}


def published_names(tensors: dict[str, SourceTensor]) -> dict[str, SourceTensor]:
    """Any layout's tensors under the table's names."""
    result: dict[str, SourceTensor] = {}
    for name, tensor in tensors.items():
        found = next(((old, new) for old, new in _PREFIXES if name.startswith(old)), ("", ""))
        known = found[1] + name[len(found[0]) :]
        if known.startswith("vision_tower.") and not known.startswith("vision_tower.vision_model."):
            known = "vision_tower.vision_model." + known.removeprefix("vision_tower.")
        if known in result:
            raise ModelCorrupt(f"{tensor.file.path}: {name} and {result[known].name} are the same tensor, {known}")
        result[known] = tensor
    return result


def _join_tower(checkpoint: Checkpoint, config: Config, tensors: dict[str, SourceTensor]) -> Config:
    """The tower of the authors' layout: in the weights, or CLIP's own checkpoint in a folder beside them."""
    named = checkpoint.config.get("mm_vision_tower")
    inside = any(name.startswith("vision_tower.") for name in tensors)
    folder = checkpoint.folder.inner(_TOWER)
    if folder is None:
        if inside and isinstance(named, str) and named in _KNOWN_TOWERS:
            tower = _KNOWN_TOWERS[named]
        else:
            raise ModelNotFound(
                f"no folder {checkpoint.folder.path / _TOWER}: put the checkpoint of {brief(named)} (config.json, "
                "preprocessor_config.json and the weights) there"
            )
    else:
        with open_hf(folder, None) as part:
            tower = read_tower(Section(part.config.get("vision_config", part.config), f"{_TOWER}/config.json"))
            if not inside:
                tensors.update(tower_tensors(part.tensors))
            checkpoint.preprocessor = checkpoint.preprocessor or part.preprocessor
            checkpoint.files.extend(part.files)
            part.files = []  # the checkpoint closes them
    own = Section({"mm_vision_select_layer": config.feature_layer}, "")
    return replace(config, tower=tower, feature_layer=max(read_feature_layers(own, "mm_vision_select_layer", tower)))


def tower_tensors(tensors: dict[str, SourceTensor]) -> dict[str, SourceTensor]:
    """CLIP's tensors under the table's names; its text half is no part of the model."""
    text = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
    names = {name: f"vision_tower.vision_model.{name.removeprefix('vision_model.')}" for name in tensors}
    return {names[name]: tensor for name, tensor in tensors.items() if not name.startswith(text)}


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    c = config_of_file(where, ARCHITECTURE)
    check_tensors_of(where, tensor_table(c), tensors)


def config_of_file(where: str, arch: str) -> Config:
    """The sizes in a GGUF file's keys, which the engine has accepted."""
    keys = _core.GgufFile(where).metadata()
    layer, projector = keys[f"{arch}.vision.feature_layer"], keys[f"{arch}.projector"]
    return Config(
        **vars(decoder_of(keys, arch)),
        tower=tower_of_file(keys),
        feature_layer=layer,
        feature_layers=tuple(keys.get(f"{arch}.vision.feature_layers", ())),
        projector=projector,
        aspect=None,
        image_id=None,
    )


def tower_of_file(keys: dict[str, Any]) -> Tower:
    """The sizes of the tower's tensors."""
    vision = {key: keys[f"clip.vision.{key}"] for key in ("embedding_length", "block_count", "feed_forward_length")}
    return Tower(
        vision["embedding_length"], vision["block_count"], vision["feed_forward_length"], 1, 1e-5,
        keys["clip.vision.image_size"], keys["clip.vision.patch_size"],
    )  # fmt: skip


# ---- metadata


def read_vocabulary(checkpoint: Checkpoint) -> SpmBpe:
    """LLaMA's vocabulary with the tokens that are added to it."""
    vocabulary = read_spm_bpe(checkpoint.tokenizer)
    if not vocabulary.add_bos:
        raise ModelCorrupt(f"{vocabulary.where}: add_bos_token is false; every prompt of {NAME} begins with one")
    if _is_own(checkpoint.config):  # the authors' code encodes the text before and behind an image by itself
        vocabulary = replace(vocabulary, blanks=replace(vocabulary.blanks, every_segment=True))
    pad = vocabulary.pad
    if pad in (vocabulary.bos, vocabulary.eos, vocabulary.unk):  # it needs a token of its own, or none
        return replace(vocabulary, pad=None)
    return vocabulary


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: SpmBpe, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch, first = ARCHITECTURE, c.projector == "linear"
    zeroth = checkpoint.card.get("version") == "v0"
    prompts = _PROMPTS_V0 if zeroth else {**PROMPTS, "system": _FIRST["system"]} if first else PROMPTS
    if checkpoint.config.get("mm_use_im_start_end") is True:
        prompts = _with_marks(prompts, vocabulary)
    card = read_card(checkpoint.card, {**CARD, "version": _FIRST["version"]} if first else CARD, prompts)
    aspect = _read_aspect(checkpoint.preprocessor, c)
    pixels = read_pixels(checkpoint.preprocessor)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(c))
    return [
        *general_entries(card, arch, count, file_type),
        (f"{arch}.converter", "str", converter),
        (f"{arch}.source.sha256", "[str]", sha256),
        *decoder_entries(c, arch),
        *tower_entries(c.vision, arch, c.width, pixels),
        *layer_entries(c, arch),
        (f"{arch}.image.aspect", "str", aspect),
        (f"{arch}.image.token_id", "u32", _image_id(c, vocabulary)),
        (f"{arch}.projector", "str", c.projector),
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(_MAX_NEW_TOKENS, c.context // 2),  # leaves room for the prompt
            no_repeat_ngram_size=0,
            ids={"bos_token_id": vocabulary.bos, "eos_token_id": vocabulary.eos},
        ),
        *([(f"{arch}.generation.stop", "str", _STOP)] if zeroth else []),
        *told_entries(arch, card),
        *vocabulary.entries(),
    ]


def _with_marks(prompts: dict[str, str], vocabulary: SpmBpe) -> dict[str, str]:
    """With tokens around the image, and a format for questions without one."""
    missing = [mark for mark in _MARKS if mark not in vocabulary.tokens]
    if missing:
        raise ModelCorrupt(f"{vocabulary.where}: there is no {missing[0]}; config.json says mm_use_im_start_end")
    marked = {task: text.replace("{image}", "{image}".join(_MARKS)) for task, text in prompts.items()}
    return {**marked, "follow_up": prompts["question"].replace("{image}\n", "")}


def layer_entries(c: Config, arch: str) -> list[Entry]:
    """The layers that the features are of."""
    several: list[Entry] = [(f"{arch}.vision.feature_layers", "[i32]", list(c.feature_layers))]
    return [(f"{arch}.vision.feature_layer", "i32", c.feature_layer), *(several if c.feature_layers else [])]


def told_entries(arch: str, card: dict[str, Any]) -> list[Entry]:
    """The formats of prompts, and what users are told."""
    return [
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items() if text),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
    ]


def _image_id(c: Config, vocabulary: SpmBpe) -> int:
    """The placeholder of an image's rows; the authors' vocabulary has none, so it is the unknown token there."""
    return vocabulary.unk if c.image_id is None else check_image_id(c, c.image_id, vocabulary.kinds)


def check_image_id(c: Config, image_id: int, kinds: list[int]) -> int:
    """The placeholder is an added token, or the unknown one."""
    if image_id >= c.vocab or kinds[image_id] not in (CONTROL, USER_DEFINED, UNKNOWN):
        raise ModelCorrupt(f"config.json: image_token_index is {image_id}, which is no added token of the vocabulary")
    return image_id


def _read_aspect(settings: dict[str, Any], c: Config) -> str:
    """What becomes of pictures that are not square; everything else must be what the engine does."""
    check_crop(settings, c.vision.image_size)
    padded = settings.get("do_pad", False)
    expect(settings, "do_pad", "true or false", isinstance(padded, bool))
    return c.aspect or ("pad" if padded else "crop")
