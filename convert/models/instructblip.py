"""InstructBLIP with a Vicuna decoder: EVA-CLIP's tower, a Q-Former that reads the question, a linear product, LLaMA.
Transformers' layout, of old and new versions."""

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
from ..sources.tensor import SourceTensor
from ..sources.tokenizer_files import TokenizerFiles
from ..spm_bpe import SpmBpe, read_spm_bpe
from ..tokenizer import CONTROL, UNKNOWN, USER_DEFINED
from ..word_piece import WordPiece, read_word_piece
from .bridge import (
    Qformer,
    check_squash,
    eva_table,
    fit_bridge,
    parts_of,
    qformer_entries,
    qformer_table,
    read_qformer,
    read_tower,
)
from .clip import Tower, read_pixels, tower_entries, weight_and_bias
from .llama import Decoder, decoder_entries, decoder_of, decoder_table, fit_decoder, read_decoder

NAME, ARCHITECTURE = "InstructBLIP", "instructblip"
IGNORED = (".position_ids", ".rotary_emb.inv_freq")  # buffers that some versions of transformers stored
TIED: dict[str, str] = {}  # fit sees to it

PROMPTS = {
    "caption": "{image}A short image description.",
    "caption_detailed": "{image}Describe this image in detail.",
    "question": "{image}Question: {question} Short answer:",
}
CARD = {
    "name": "InstructBLIP Vicuna",
    "basename": "InstructBLIP-Vicuna",
    "version": "v1",
    "size_label": "",  # counted
    "description": "InstructBLIP: captions and answers from pictures; vision, Q-Former and decoder in one file",
    "license": "other",  # its language model is made of LLaMA's, and is not for commercial use
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
_MAX_NEW_TOKENS = 256
_QUESTION = "qformer_tokenizer"  # folder of the vocabulary in which the Q-Former reads


@dataclass(frozen=True)
class Text:
    """Of the Q-Former: rows of its tables of tokens and positions."""

    vocab: int
    positions: int


@dataclass(frozen=True, kw_only=True)
class Config(Decoder):
    """The sizes of a model. vocab: rows of the embedding; once the vocabulary is known, its number of tokens."""

    tower: Tower
    qformer: Qformer
    text: Text
    image_id: int | None  # of the image's placeholder; None: the vocabulary has none


@dataclass(frozen=True)
class Vocabulary:
    """Those of the decoder and of the Q-Former. begin: the token that a prompt begins with."""

    spm: SpmBpe
    begin: int
    question: WordPiece


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is InstructBLIP's."""
    return settings.get("model_type") == "instructblip"


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json."""
    whole = Section(settings, "")
    text = Section(whole.get("text_config", {}), "text_config")
    text.only("model_type", "llama")
    decoder = read_decoder(text)
    whole.only("tie_word_embeddings", False, *([True] if decoder.tied else []))
    image_id = whole.get("image_token_index", whole.get("image_token_id", None))
    if image_id is not None and (type(image_id) is not int or image_id < 0):
        raise whole.bad("image_token_index", "a token id")
    tower = read_tower(Section(whole.get("vision_config", {}), "vision_config"), "instructblip_vision_model")
    return Config(
        **vars(decoder),
        tower=tower,
        qformer=read_qformer(whole, "instructblip_qformer", tower),
        text=read_text(whole),
        image_id=image_id,
    )


def read_text(whole: Section) -> Text:
    """What the Q-Former of a config.json reads."""
    own = Section(whole.get("qformer_config", {}), "qformer_config")
    own.only("position_embedding_type", "absolute")
    return Text(own.whole("vocab_size", 30522), own.whole("max_position_embeddings", 512, 65536))


# ---- tensors


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    yield from decoder_table(c)
    yield from eva_table(c.tower, "vision_model.")
    yield from reader_table(c.qformer, c.text, c.tower.width, c.width)


def reader_table(q: Qformer, text: Text, features: int, out: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The rows of a Q-Former that reads text. features, out: as qformer_table's."""
    yield from qformer_table(q, features, out, norm="embeddings.layernorm")
    d, ff, own = q.width, q.ff_width, "qformer.embeddings."
    yield own + "word_embeddings.weight", "mm.token_embd.weight", (text.vocab, d)
    yield own + "position_embeddings.weight", "mm.position_embd.weight", (text.positions, d)
    for n in range(q.layers - 1):  # nobody looks at what the last one makes of the text
        block, name = f"qformer.encoder.layer.{n}.", f"mm.blk.{n}.text."
        yield from weight_and_bias(block + "intermediate.dense", name + "ffn_up", ff, d)
        yield from weight_and_bias(block + "output.dense", name + "ffn_down", d, ff)
        yield from weight_and_bias(block + "output.LayerNorm", name + "ffn_norm", d)


_PREFIXES = (  # of transformers 5 in memory -> as published; the first that fits
    ("model.language_model.", "language_model.model."),
    ("model.", ""),
    ("lm_head.", "language_model.lm_head."),
)


def fit(checkpoint: Checkpoint, config: Config, vocabulary: Vocabulary) -> Config:
    """Brings the tensors under the table's names, without those that nothing computes with."""
    tensors = fit_bridge(_renamed(checkpoint.tensors), "vision_model.")
    tensors, text = fit_reader(tensors, config.qformer, config.text, vocabulary.question)
    config = fit_decoder(tensors, config, vocabulary.spm)
    checkpoint.tensors = tensors
    return replace(config, text=text)


def fit_reader(
    tensors: dict[str, SourceTensor], qformer: Qformer, text: Text, question: WordPiece
) -> tuple[dict[str, SourceTensor], Text]:
    """The tensors without what the Q-Former's last block makes of the text and without rows that only pad its
    vocabulary; its text with that many tokens."""
    last = f"qformer.encoder.layer.{qformer.layers - 1}."
    unused = (last + "intermediate.", last + "output.")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}
    tokens = len(question.tokens)
    if tokens > text.vocab:
        raise ModelCorrupt(f"{_QUESTION}: {tokens} tokens, qformer_config.vocab_size is {text.vocab}")
    words = "qformer.embeddings.word_embeddings.weight"
    if words in tensors and tensors[words].shape == (text.vocab, qformer.width):
        tensors[words] = replace(tensors[words], shape=(tokens, qformer.width))
    return tensors, replace(text, vocab=tokens)


def _renamed(tensors: dict[str, SourceTensor]) -> dict[str, SourceTensor]:
    result: dict[str, SourceTensor] = {}
    for name, tensor in tensors.items():
        old, new = next(((old, new) for old, new in _PREFIXES if name.startswith(old)), ("", ""))
        known = new + name[len(old) :]
        if known in result:
            raise ModelCorrupt(f"{tensor.file.path}: {name} and {result[known].name} are the same tensor, {known}")
        result[known] = tensor
    return result


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()
    tower, qformer = parts_of(keys, ARCHITECTURE)
    text = text_of(keys, ARCHITECTURE)
    c = Config(**vars(decoder_of(keys, ARCHITECTURE)), tower=tower, qformer=qformer, text=text, image_id=None)
    check_tensors_of(where, tensor_table(c), tensors)


def text_of(keys: dict[str, Any], architecture: str) -> Text:
    """What the keys of a GGUF file say of it."""
    return Text(keys[f"{architecture}.qformer.vocab_size"], keys[f"{architecture}.qformer.context_length"])


# ---- metadata


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """Vicuna's vocabulary with the tokens that are added to it, and BERT's."""
    spm = read_spm_bpe(checkpoint.tokenizer, llama_class=True)
    begin = spm.bos  # of tokenizer_config.json, whatever a tokenizer.json puts first: the model was trained with it
    if spm.bos == spm.eos:  # as published: prompts begin with </s>
        first = spm.tokens.index("<s>") if "<s>" in spm.tokens else spm.bos
        if spm.kinds[first] != CONTROL or first == spm.eos:
            raise ModelCorrupt(f"{spm.where}: bos_token is eos_token, and <s> is no control token beside it")
        spm = replace(spm, bos=first)
    if spm.pad in (spm.bos, spm.eos, spm.unk):  # it needs a token of its own, or none
        spm = replace(spm, pad=None)
    if not spm.add_bos:
        raise ModelCorrupt(f"{spm.where}: add_bos_token is false; every prompt of {NAME} begins with one")
    return Vocabulary(spm, begin, read_question(checkpoint))


def read_question(checkpoint: Checkpoint) -> WordPiece:
    """The vocabulary in which the Q-Former reads."""
    folder = checkpoint.folder.inner(_QUESTION)
    if folder is None:
        raise ModelNotFound(
            f"no folder {checkpoint.folder.path / _QUESTION}: put the Q-Former's vocabulary (tokenizer.json or "
            "vocab.txt, and tokenizer_config.json) there"
        )
    return read_word_piece(TokenizerFiles(folder, None, checkpoint.files))


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: Vocabulary, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch = ARCHITECTURE
    card = read_card(checkpoint.card, CARD, PROMPTS)
    pixels = read_pixels(checkpoint.preprocessor)
    check_squash(checkpoint.preprocessor, c.tower.image_size)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(c))
    return [
        *general_entries(card, arch, count, file_type),
        (f"{arch}.converter", "str", converter),
        (f"{arch}.source.sha256", "[str]", sha256),
        *decoder_entries(c, arch),
        *qformer_entries(c.qformer, arch),
        *reader_entries(c.text, vocabulary.question, arch),
        *tower_entries(c.tower, arch, c.width, pixels, gelu=True),
        (f"{arch}.image.token_id", "u32", _image_id(c, vocabulary.spm)),
        (f"{arch}.begin_token_id", "u32", vocabulary.begin),
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(_MAX_NEW_TOKENS, c.context // 2),  # leaves room for the prompt
            no_repeat_ngram_size=0,
            ids={},  # generation_config.json has LLaMA's, whatever the tokenizer says
        ),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items()),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.spm.entries(),
    ]


def reader_entries(text: Text, question: WordPiece, architecture: str) -> list[Entry]:
    """<architecture>.qformer.* of the text."""
    own = f"{architecture}.qformer"
    return [
        (f"{own}.vocab_size", "u32", text.vocab),
        (f"{own}.context_length", "u32", text.positions),
        (f"{own}.tokenizer", "str", "bert-uncased"),
        (f"{own}.tokens", "[str]", question.tokens),
        (f"{own}.begin_token_id", "u32", question.begin),
        (f"{own}.end_token_id", "u32", question.end),
        (f"{own}.unknown_token_id", "u32", question.unk),
    ]


def _image_id(c: Config, vocabulary: SpmBpe) -> int:
    """The placeholder of an image's rows; old vocabularies have none, so it is the unknown token there."""
    if c.image_id is None:
        return vocabulary.unk
    if c.image_id >= c.vocab or vocabulary.kinds[c.image_id] not in (CONTROL, USER_DEFINED, UNKNOWN):
        raise ModelCorrupt(f"config.json: image_token_index is {c.image_id}, which is no added token of the vocabulary")
    return c.image_id
