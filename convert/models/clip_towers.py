"""CLIP: both towers in one file, to compare images and texts. transformers' layout of CLIPModel, as OpenAI published
ViT-L/14, B/16 and B/32."""

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from ..byte_bpe import ByteBpe
from ..card import general_entries, read_card
from ..clip_bpe import read_clip_bpe
from ..gguf import Entry
from ..mapping import check_tensors_of
from ..settings import Section
from ..sources.checkpoint import Checkpoint
from ..sources.files import brief
from ..sources.tensor import SourceTensor
from ..tokenizer import UNUSED
from .clip import Tower, check_crop, read_pixels, tower_entries, tower_table, weight_and_bias
from .llava import read_tower, tower_of_file

NAME, ARCHITECTURE = "CLIP", "clip_towers"
IGNORED = (".position_ids",)  # buffers that some versions of transformers stored
TIED: dict[str, str] = {}
CARD = {
    "name": "CLIP",
    "basename": "CLIP",
    "version": "v1",
    "size_label": "",  # counted
    "description": "CLIP: compares images and texts; both towers in one file",
    "license": "mit",
    "languages": ["en"],
    "tags": ["zero-shot-image-classification"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
_OLD_END = 2  # eos_token_id of files from before transformers knew CLIP's: the highest id of a text is its end
_SCALE = "logit_scale"
_FLOATS = {"F32": "<f", "F16": "<e"}


@dataclass(frozen=True)
class Config:
    """The sizes of a model; those without `tower` are the text tower's."""

    vocab: int
    width: int
    layers: int
    ff_width: int
    heads: int
    eps: float
    context: int
    projection: int
    tower: Tower
    end: int = _OLD_END  # eos_token_id
    logit_scale: float = 0.0


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is CLIP's."""
    return settings.get("model_type") == "clip"


def _part(settings: dict[str, Any], name: str) -> Section:
    """A tower's section; old files have a second form of it, which is the one that counts."""
    given = settings.get(f"{name}_dict")
    return Section(settings.get(name, {}) if given is None else given, name if given is None else f"{name}_dict")


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json."""
    whole, text = Section(settings, ""), _part(settings, "text_config")
    text.only("model_type", "clip_text_model")
    text.only("hidden_act", "quick_gelu")
    width, heads = text.whole("hidden_size", 512), text.whole("num_attention_heads", 8)
    if width % heads:
        raise text.bad("hidden_size", f"a multiple of {heads} heads")
    end = text.get("eos_token_id", 49407)
    if type(end) is not int or end < 0:
        raise text.bad("eos_token_id", "a token id")
    return Config(
        vocab=text.whole("vocab_size", 49408),
        width=width,
        layers=text.whole("num_hidden_layers", 12, 1000),
        ff_width=text.whole("intermediate_size", 2048),
        heads=heads,
        eps=text.real("layer_norm_eps", 1e-5, 0, 1),
        context=text.whole("max_position_embeddings", 77),
        projection=whole.whole("projection_dim", 512),
        tower=read_tower(_part(settings, "vision_config")),
        end=end,
    )


# ---- tensors


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    d = c.width
    yield "text_model.embeddings.token_embedding.weight", "token_embd.weight", (c.vocab, d)
    yield "text_model.embeddings.position_embedding.weight", "position_embd.weight", (c.context, d)
    for n in range(c.layers):
        source, name = f"text_model.encoder.layers.{n}.", f"blk.{n}."
        yield from weight_and_bias(source + "layer_norm1", name + "attn_norm", d)
        for part in "qkv":
            yield from weight_and_bias(f"{source}self_attn.{part}_proj", f"{name}attn_{part}", d, d)
        yield from weight_and_bias(source + "self_attn.out_proj", name + "attn_output", d, d)
        yield from weight_and_bias(source + "layer_norm2", name + "ffn_norm", d)
        yield from weight_and_bias(source + "mlp.fc1", name + "ffn_up", c.ff_width, d)
        yield from weight_and_bias(source + "mlp.fc2", name + "ffn_down", d, c.ff_width)
    yield from weight_and_bias("text_model.final_layer_norm", "output_norm", d)
    yield "text_projection.weight", "output.weight", (c.projection, d)
    yield from tower_table(c.tower, "vision_model.", c.tower.layers)
    yield "visual_projection.weight", "mm.0.weight", (c.projection, c.tower.width)


def fit(checkpoint: Checkpoint, config: Config, vocabulary: ByteBpe) -> Config:
    """Takes the scale of cosines out of the tensors, and sees to it that a text's vector is that of its last token."""
    tensors = dict(checkpoint.tensors)
    scale = tensors.pop(_SCALE, None)
    if scale is None:
        raise ModelCorrupt(f"{checkpoint.files[0].path}: {_SCALE} () is missing")
    checkpoint.tensors = tensors
    if len(vocabulary.tokens) > config.vocab:
        raise ModelCorrupt(
            f"{vocabulary.where}: {len(vocabulary.tokens)} tokens, the embedding has {config.vocab} rows"
        )
    if config.end == _OLD_END:
        above = [n for n, kind in enumerate(vocabulary.kinds) if n > vocabulary.eos and kind != UNUSED]
        if above:
            raise ModelCorrupt(
                f"config.json: text_config.eos_token_id is {_OLD_END}, with which the highest id of a text is its end; "
                f"the vocabulary has tokens above {vocabulary.eos}, such as {brief(vocabulary.tokens[above[0]])}"
            )
    elif config.end != vocabulary.eos:
        raise ModelCorrupt(
            f"config.json: text_config.eos_token_id is {config.end}, the vocabulary's eos_token is {vocabulary.eos}"
        )
    return replace(config, logit_scale=_read_scale(scale))


def _read_scale(tensor: SourceTensor) -> float:
    """The scalar: ln of what cosines are multiplied by."""
    if tensor.shape not in ((), (1,)) or tensor.dtype not in ("F32", "F16", "BF16"):
        raise ModelCorrupt(f"{tensor.file.path}: {_SCALE} is {tensor.dtype} {tensor.shape}, expected one float")
    data = bytes(tensor.read(0, tensor.nbytes))
    if tensor.dtype == "BF16":
        data = b"\0\0" + data
    (value,) = struct.unpack(_FLOATS.get(tensor.dtype, "<f"), data)
    if not -10 <= value <= 10:
        raise ModelCorrupt(f"{tensor.file.path}: {_SCALE} is {value}, expected a number in -10..10")
    return float(value)


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()

    def own(key: str) -> Any:
        return keys[f"{ARCHITECTURE}.{key}"]

    c = Config(
        vocab=own("vocab_size"), width=own("embedding_length"), layers=own("block_count"),
        ff_width=own("feed_forward_length"), heads=1, eps=1e-5, context=own("context_length"),
        projection=keys["clip.vision.projection_dim"], tower=tower_of_file(keys),
    )  # fmt: skip
    check_tensors_of(where, tensor_table(c), tensors)


# ---- metadata


def read_vocabulary(checkpoint: Checkpoint) -> ByteBpe:
    """CLIP's words."""
    return read_clip_bpe(checkpoint.tokenizer)


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: ByteBpe, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch = ARCHITECTURE
    card = read_card(checkpoint.card, CARD, {})
    pixels = read_pixels(checkpoint.preprocessor)
    check_crop(checkpoint.preprocessor, c.tower.image_size)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(c)) + 1
    return [
        *general_entries(card, arch, count, file_type),
        (f"{arch}.converter", "str", converter),
        (f"{arch}.source.sha256", "[str]", sha256),
        (f"{arch}.context_length", "u32", c.context),
        (f"{arch}.embedding_length", "u32", c.width),
        (f"{arch}.block_count", "u32", c.layers),
        (f"{arch}.feed_forward_length", "u32", c.ff_width),
        (f"{arch}.attention.head_count", "u32", c.heads),
        (f"{arch}.attention.layer_norm_epsilon", "f32", c.eps),
        (f"{arch}.vocab_size", "u32", c.vocab),
        (f"{arch}.logit_scale", "f32", c.logit_scale),
        *tower_entries(c.tower, arch, c.projection, pixels),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.padded(c.vocab).entries(),
    ]
