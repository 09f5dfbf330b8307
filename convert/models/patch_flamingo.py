"""What is the same in every Flamingo of open_flamingo, whatever its language model: CLIP's tower whose patches count, a
perceiver, gated cross-attention in front of every n-th block.

Published is what was trained, checkpoint.pt; the language model and CLIP are repositories of their own. So a
checkpoint is a folder of three parts: checkpoint.pt and config.json; the language model with its tokenizer in
`lang_encoder`; CLIP in `vision`.
"""

import abc
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

from ..byte_bpe import ByteBpe, read_byte_bpe
from ..card import general_entries, read_card
from ..generation import generation_entries
from ..gguf import Entry
from ..mapping import check_tensors_of, equal_tensors
from ..settings import Section
from ..sources.checkpoint import Checkpoint
from ..sources.files import Folder
from ..sources.hf import LANGUAGE, open_hf
from ..sources.tensor import SourceTensor
from ..sources.tokenizer_files import TokenizerFiles
from ..tokenizer import CONTROL, USER_DEFINED
from .clip import Tower, check_crop, read_pixels, tower_entries, tower_table, weight_and_bias
from .flamingo import Names, Perceiver, Rows, perceiver_entries, perceiver_of, perceiver_table

END, IMAGE, PAD = "<|endofchunk|>", "<image>", "<PAD>"  # added to the language model's vocabulary in this order
HEADS, HEAD = 8, 64  # of the perceiver and of what looks at images, whatever their width
VISION = "vision"  # the folder of the tower
_MAX_NEW_TOKENS = 32


@dataclass(frozen=True)
class Config:
    """The sizes of a model; but for `every` they come with its parts."""

    every: int  # blocks every - 1, 2 every - 1, ... look at images
    vocab: int = 0
    width: int = 0
    layers: int = 0
    ff_width: int = 0
    heads: int = 0
    context: int = 0
    eps: float = 0.0
    tower: Tower | None = None
    perceiver: Perceiver | None = None
    look_heads: int = HEADS
    look_dim: int = HEAD
    look_ff: int = 0


class Language(abc.ABC):
    """What the language models differ in. `Any` is the model's own Config."""

    architecture: ClassVar[str]  # general.architecture of its GGUF files
    card: ClassVar[dict[str, Any]]
    prompts: ClassVar[dict[str, str]]
    embedding: ClassVar[str]  # the name of its table of tokens
    head: ClassVar[str]  # of its output matrix
    tied: ClassVar[bool]  # the head is the embedding
    blocks: ClassVar[str]  # what its blocks' names begin with, in front of the number

    @abc.abstractmethod
    def read(self, settings: dict[str, Any], c: Config) -> Any:
        """Its config.json -> c with its sizes."""

    @abc.abstractmethod
    def of_file(self, keys: dict[str, Any], c: Config) -> Any:
        """c with what the keys of a GGUF file say of this language model alone."""

    @abc.abstractmethod
    def entries(self, c: Any) -> list[Entry]:
        """The keys that this language model alone has."""

    @abc.abstractmethod
    def block(self, c: Any, n: int) -> Rows:
        """The rows of a block in the table."""

    @abc.abstractmethod
    def last_norm(self, c: Any) -> Rows:
        """The row or rows of the norm behind the blocks."""

    @abc.abstractmethod
    def split(self, tensors: dict[str, SourceTensor], c: Any) -> dict[str, SourceTensor]:
        """Its tensors under the names of the table: queries, keys and values have names of their own."""


def read_config(settings: dict[str, Any]) -> Config:
    """What the folder's config.json says; `fit` reads those of its parts."""
    whole = Section(settings, "")
    if whole.get("cross_attn_every_n_layers", None) is None:
        raise whole.bad("cross_attn_every_n_layers", "how many blocks of the language model share a cross-attention")
    return Config(every=whole.whole("cross_attn_every_n_layers", 1, 512))


def _read_tower(settings: dict[str, Any]) -> Tower:
    """CLIP's config.json, of the tower alone or of both halves."""
    vision = Section(settings.get("vision_config", settings), f"{VISION}/vision_config")
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


# ---- tensors

_CROSS = "cross.{}."  # our name of a gated block's beginning
_PARTS = {
    "attn_norm": "perceiver.layers.{}.0.norm_latents",
    "context_norm": "perceiver.layers.{}.0.norm_media",
    "attn_q": "perceiver.layers.{}.0.to_q",
    "attn_k": "perceiver.layers.{}.0.to_k",
    "attn_v": "perceiver.layers.{}.0.to_v",
    "attn_output": "perceiver.layers.{}.0.to_out",
    "ffn_norm": "perceiver.layers.{}.1.0",
    "ffn_up": "perceiver.layers.{}.1.1",
    "ffn_down": "perceiver.layers.{}.1.3",
}
_NAMES = Names("perceiver.latents", _PARTS, "perceiver.norm")


def tensor_table(language: Language, c: Any) -> Rows:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    assert c.tower is not None and c.perceiver is not None
    d, v, inner = c.width, c.tower.width, c.look_heads * c.look_dim
    yield language.embedding, "token_embd.weight", (c.vocab, d)
    for n in range(c.layers):
        if (n + 1) % c.every == 0:
            source, name = _CROSS.format(n), f"blk.{n}.cross."
            yield from weight_and_bias(source + "attn.norm", name + "attn_norm", d)
            yield source + "attn.to_q.weight", name + "attn_q.weight", (inner, d)
            for part in "kv":
                yield f"{source}attn.to_{part}.weight", f"{name}attn_{part}.weight", (inner, v)
            yield source + "attn.to_out.weight", name + "attn_output.weight", (d, inner)
            yield source + "attn_gate", name + "attn_alpha", (1,)
            yield from weight_and_bias(source + "ff.0", name + "ffn_norm", d)
            yield source + "ff.1.weight", name + "ffn_up.weight", (c.look_ff, d)
            yield source + "ff.3.weight", name + "ffn_down.weight", (d, c.look_ff)
            yield source + "ff_gate", name + "ffn_alpha", (1,)
        yield from language.block(c, n)
    yield from language.last_norm(c)
    if not language.tied:
        yield language.head, "output.weight", (c.vocab, d)
    yield from tower_table(c.tower, "vision_model.", c.tower.layers, post_norm=False)
    yield from perceiver_table(c.perceiver, v, _NAMES)


def fit(language: Language, checkpoint: Checkpoint, config: Config, vocabulary: ByteBpe) -> Any:
    """Joins the parts: what was trained goes before what the language model brings along."""
    trained = _trained(language, checkpoint.tensors)
    own, settings = _open(checkpoint, LANGUAGE, "the language model")
    config = language.read(settings, config)
    if config.every > config.layers:
        raise ModelCorrupt(
            f"{LANGUAGE}/config.json: {config.layers} blocks, "
            f"expected at least cross_attn_every_n_layers, {config.every}"
        )
    tower, settings = _open(checkpoint, VISION, "CLIP")
    config = replace(config, look_ff=4 * config.width, tower=_read_tower(settings), perceiver=_perceiver(trained))
    if language.tied:
        for tensors in (own, trained):
            _drop_tied(language, tensors)
    tensors = {**language.split(own, config), **_tower(tower)}
    tensors |= {name: tensor for name, tensor in trained.items() if not name.endswith(".to_kv.weight")}
    for name, tensor in trained.items():
        if name.endswith(".to_kv.weight"):
            for part, half in zip("kv", cut(tensor, 2), strict=True):
                tensors[name.replace(".to_kv.", f".to_{part}.")] = half
    tokens = len(vocabulary.tokens)
    for name in (language.embedding, language.head):
        if name in tensors and len(tensors[name].shape) == 2:
            rows, width = tensors[name].shape
            if tokens > rows:
                raise ModelCorrupt(f"{vocabulary.where}: {tokens} tokens, {name} has {rows} rows")
            tensors[name] = replace(tensors[name], shape=(tokens, width))
    checkpoint.tensors = tensors
    return replace(config, vocab=tokens)


def _drop_tied(language: Language, tensors: dict[str, SourceTensor]) -> None:
    """Takes out an output matrix, which must be the same part's embedding."""
    head, embedding = tensors.pop(language.head, None), tensors.get(language.embedding)
    if head is not None and (embedding is None or not equal_tensors(head, embedding)):
        raise ModelCorrupt(
            f"{head.file.path}: {head.name} is not the embedding, {language.embedding}; they are one matrix"
        )


def _open(checkpoint: Checkpoint, name: str, what: str) -> tuple[dict[str, SourceTensor], dict[str, Any]]:
    """-> (tensors, config.json) of a part in a folder beside the weights."""
    folder = checkpoint.folder.inner(name)
    if folder is None:
        raise ModelNotFound(
            f"no folder {checkpoint.folder.path / name}: put {what} there (config.json, the weights, and its "
            f"{'preprocessor_config.json' if name == VISION else 'tokenizer'})"
        )
    with open_hf(folder, None) as part:
        checkpoint.preprocessor = checkpoint.preprocessor or part.preprocessor
        checkpoint.files.extend(part.files)
        part.files = []  # the checkpoint closes them
        return part.tensors, part.config


def _trained(language: Language, tensors: dict[str, SourceTensor]) -> dict[str, SourceTensor]:
    """The tensors of checkpoint.pt under the table's names, of whichever of the paths that it has them under."""
    found: dict[str, SourceTensor] = {}
    for name, tensor in tensors.items():
        known = name.removeprefix("module.")
        for path in (f"lang_encoder.{language.blocks}", "lang_encoder.gated_cross_attn_layers."):
            number, _, rest = known.removeprefix(path).partition(".")
            if known.startswith(path) and number.isdecimal():
                rest = rest.removeprefix("gated_cross_attn_layer.")
                known = _CROSS.format(number) + rest
                break
        known = known.removeprefix("lang_encoder.")
        if known in found:
            raise ModelCorrupt(f"{tensor.file.path}: {name} and {found[known].name} are the same tensor, {known}")
        found[known] = tensor
    return found


def _perceiver(trained: dict[str, SourceTensor]) -> Perceiver:
    """Its sizes, which no setting says: those of its tensors."""
    latents = trained.get("perceiver.latents")
    if latents is None or len(latents.shape) != 2:
        where = next(iter(trained.values())).file.path if trained else "checkpoint.pt"
        raise ModelCorrupt(f"{where}: perceiver.latents is missing, expected a matrix")
    layers = 0
    while _PARTS["attn_q"].format(layers) + ".weight" in trained:
        layers += 1
    return Perceiver(layers=layers, heads=HEADS, head_dim=HEAD, ff_width=4 * latents.shape[1], latents=latents.shape[0])


def _tower(tensors: dict[str, SourceTensor]) -> dict[str, SourceTensor]:
    """CLIP's, without its text half and the norm that nothing reads."""
    other = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
    names = {
        name: f"vision_model.{name.removeprefix('vision_model.')}" for name in tensors if not name.startswith(other)
    }
    unused = "vision_model.post_layernorm."
    return {known: tensors[name] for name, known in names.items() if not known.startswith(unused)}


def cut(tensor: SourceTensor, count: int) -> list[SourceTensor]:
    """So many stretches of as many rows each."""
    if not tensor.shape or tensor.shape[0] % count:
        raise ModelCorrupt(
            f"{tensor.file.path}: {tensor.name} has the shape {tensor.shape}, expected a multiple of {count} rows"
        )
    shape = (tensor.shape[0] // count, *tensor.shape[1:])
    size = tensor.nbytes // count
    return [replace(tensor, shape=shape, offset=tensor.offset + i * size) for i in range(count)]


def check(
    language: Language,
    where: str,
    settings: dict[str, Any],
    tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]],
) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()

    def own(key: str) -> Any:
        return keys[f"{language.architecture}.{key}"]

    vision = {key: keys[f"clip.vision.{key}"] for key in ("embedding_length", "block_count", "feed_forward_length")}
    tower = Tower(
        vision["embedding_length"], vision["block_count"], vision["feed_forward_length"], 1, 1e-5,
        keys["clip.vision.image_size"], keys["clip.vision.patch_size"],
    )  # fmt: skip
    c = Config(
        every=own("cross_attention.every"), vocab=own("vocab_size"), width=own("embedding_length"),
        layers=own("block_count"), ff_width=own("feed_forward_length"), heads=own("attention.head_count"),
        tower=tower, perceiver=perceiver_of(keys, language.architecture),
        look_heads=own("cross_attention.head_count"), look_dim=own("cross_attention.key_length"),
        look_ff=own("cross_attention.feed_forward_length"),
    )  # fmt: skip
    check_tensors_of(where, tensor_table(language, language.of_file(keys, c)), tensors)


# ---- metadata


def read_vocabulary(language: Language, checkpoint: Checkpoint) -> ByteBpe:
    """The language model's vocabulary with the tokens that are added for images: to the repository's, where it does not
    have them yet, in the order of its factory."""
    files = checkpoint.tokenizer
    inner = checkpoint.folder.inner(LANGUAGE)
    if files.find("tokenizer.json", "vocab.json") is None:
        if inner is None:
            _open(checkpoint, LANGUAGE, "the language model")  # says what is missing
        files = TokenizerFiles(inner if isinstance(inner, Folder) else checkpoint.folder, None, checkpoint.files)
    vocabulary = read_byte_bpe(files)
    rows = _rows(language, checkpoint)
    tokens, kinds = list(vocabulary.tokens), list(vocabulary.kinds)
    for text in (END, IMAGE, *([PAD] if vocabulary.pad is None else [])):
        if text in tokens:
            number = tokens.index(text)
            if kinds[number] not in (CONTROL, USER_DEFINED):
                raise ModelCorrupt(f"{vocabulary.where}: {text} is an ordinary piece, expected an added token")
        elif text != PAD or rows > len(tokens):
            number = len(tokens)
            tokens.append(text)
            kinds.append(CONTROL)
        if text != PAD:
            kinds[number] = USER_DEFINED  # formats of prompts may hold it
    pad = vocabulary.pad
    return replace(vocabulary, tokens=tokens, kinds=kinds, pad=None if pad in (vocabulary.bos, vocabulary.eos) else pad)


def _rows(language: Language, checkpoint: Checkpoint) -> int:
    """Of the embedding that was trained; 0: there is none."""
    tensor = _trained(language, checkpoint.tensors).get(language.embedding)
    return tensor.shape[0] if tensor is not None and tensor.shape else 0


def metadata(
    language: Language,
    checkpoint: Checkpoint,
    c: Any,
    vocabulary: ByteBpe,
    file_type: int,
    sha256: list[str],
    converter: str,
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    assert c.tower is not None and c.perceiver is not None
    arch = language.architecture
    card = read_card(checkpoint.card, language.card, language.prompts)
    pixels = read_pixels(checkpoint.preprocessor)
    check_crop(checkpoint.preprocessor, c.tower.image_size)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(language, c))
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
        *language.entries(c),
        (f"{arch}.vocab_size", "u32", c.vocab),
        (f"{arch}.cross_attention.every", "u32", c.every),
        (f"{arch}.cross_attention.head_count", "u32", c.look_heads),
        (f"{arch}.cross_attention.key_length", "u32", c.look_dim),
        (f"{arch}.cross_attention.feed_forward_length", "u32", c.look_ff),
        *perceiver_entries(c.perceiver, arch),
        *tower_entries(c.tower, arch, c.tower.width, pixels),
        (f"{arch}.image.token_id", "u32", vocabulary.tokens.index(IMAGE)),
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(_MAX_NEW_TOKENS, c.context // 2),  # leaves room for the prompt
            no_repeat_ngram_size=0,
            ids={},
        ),
        (f"{arch}.generation.end_token_id", "u32", vocabulary.tokens.index(END)),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items()),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.entries(),
    ]
