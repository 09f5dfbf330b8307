"""LLaMA's decoder as a part of models: settings, tensors, metadata. Rows of queries and keys stay in their order: the
halves of a head are turned together."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from kosmos_edge.errors import ModelCorrupt

from ..gguf import Entry
from ..mapping import equal_tensors
from ..settings import Section, read_rope
from ..sources.tensor import SourceTensor
from ..spm_bpe import SpmBpe

EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """Its sizes. vocab: rows of the embedding; once the vocabulary is known, its number of tokens."""

    vocab: int
    width: int
    layers: int
    ff_width: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    eps: float
    rope_base: float
    rope_scale: float  # positions are divided by it
    tied: bool  # the head is the embedding
    qkv_bias: bool = False
    own_head: bool = True  # the file has an output matrix, be it tied or not


AnyDecoder = TypeVar("AnyDecoder", bound=Decoder)


# ---- config.json


def read_decoder(text: Section, tied: bool = False) -> Decoder:
    """The sizes in LLaMA's config.json, or in a text_config; what is absent is LLaMA-7B's. tied: also if it says no."""
    text.only("hidden_act", "silu")
    for key in ("attention_bias", "mlp_bias"):
        text.only(key, False)
    width, heads = text.whole("hidden_size", 4096), text.whole("num_attention_heads", 32)
    kv_heads = text.whole("num_key_value_heads", heads)
    if width % heads or heads % kv_heads:
        raise ModelCorrupt(
            f"config.json: {text.name}hidden_size {width} is no multiple of {heads} heads, "
            f"or these are none of {kv_heads} KV heads"
        )
    base, scale = read_rope(text)
    return Decoder(
        vocab=text.whole("vocab_size", 32000),
        width=width,
        layers=text.whole("num_hidden_layers", 32, 1000),
        ff_width=text.whole("intermediate_size", 11008),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=text.whole("head_dim", width // heads),
        context=text.whole("max_position_embeddings", 2048),
        eps=text.real("rms_norm_eps", 1e-6, 0, 1),
        rope_base=base,
        rope_scale=scale,
        tied=tied or bool(text.only("tie_word_embeddings", False, True)),
    )


# ---- tensors


def decoder_table(c: Decoder) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Its rows in a model's table of tensors."""
    d, q, kv = c.width, c.heads * c.head_dim, c.kv_heads * c.head_dim
    yield EMBEDDING, "token_embd.weight", (c.vocab, d)
    for n in range(c.layers):
        source, name = f"language_model.model.layers.{n}.", f"blk.{n}."
        yield source + "input_layernorm.weight", name + "attn_norm.weight", (d,)
        for part, rows in (("q", q), ("k", kv), ("v", kv)):
            yield f"{source}self_attn.{part}_proj.weight", f"{name}attn_{part}.weight", (rows, d)
            if c.qkv_bias:
                yield f"{source}self_attn.{part}_proj.bias", f"{name}attn_{part}.bias", (rows,)
        yield source + "self_attn.o_proj.weight", name + "attn_output.weight", (d, q)
        yield source + "post_attention_layernorm.weight", name + "ffn_norm.weight", (d,)
        yield source + "mlp.gate_proj.weight", name + "ffn_gate.weight", (c.ff_width, d)
        yield source + "mlp.up_proj.weight", name + "ffn_up.weight", (c.ff_width, d)
        yield source + "mlp.down_proj.weight", name + "ffn_down.weight", (d, c.ff_width)
    yield "language_model.model.norm.weight", "output_norm.weight", (d,)
    if c.own_head:
        yield HEAD, "output.weight", (c.vocab, d)


def fit_decoder(tensors: dict[str, SourceTensor], c: AnyDecoder, vocabulary: SpmBpe) -> AnyDecoder:
    """give_own_head, then cut_rows."""
    give_own_head(tensors, c)
    return cut_rows(tensors, c, len(vocabulary.tokens), vocabulary.where)


def give_own_head(tensors: dict[str, SourceTensor], c: Decoder) -> None:
    """A head that is tied to the embedding becomes one like others."""
    if c.tied and EMBEDDING in tensors:
        head = tensors.setdefault(HEAD, tensors[EMBEDDING])
        if not equal_tensors(head, tensors[EMBEDDING]):
            raise ModelCorrupt(f"{head.file.path}: {head.name} differs from the embedding; config.json says tied")


def cut_rows(tensors: dict[str, SourceTensor], c: AnyDecoder, tokens: int, where: Path) -> AnyDecoder:
    """Embedding and head without rows that only pad the vocabulary; -> the config of that many tokens."""
    if tokens > c.vocab:
        raise ModelCorrupt(f"{where}: {tokens} tokens, the embedding has {c.vocab} rows")
    for name in (EMBEDDING, HEAD):
        if name in tensors and tensors[name].shape == (c.vocab, c.width):
            tensors[name] = replace(tensors[name], shape=(tokens, c.width))
    return replace(c, vocab=tokens)


# ---- metadata


def decoder_entries(c: Decoder, architecture: str) -> list[Entry]:
    """<architecture>.* of a GGUF file."""
    entries: list[Entry] = [
        (f"{architecture}.context_length", "u32", c.context),
        (f"{architecture}.embedding_length", "u32", c.width),
        (f"{architecture}.block_count", "u32", c.layers),
        (f"{architecture}.feed_forward_length", "u32", c.ff_width),
        (f"{architecture}.attention.head_count", "u32", c.heads),
        (f"{architecture}.attention.head_count_kv", "u32", c.kv_heads),
        (f"{architecture}.attention.key_length", "u32", c.head_dim),
        (f"{architecture}.attention.layer_norm_rms_epsilon", "f32", c.eps),
        (f"{architecture}.rope.freq_base", "f32", c.rope_base),
    ]
    if c.rope_scale != 1:
        entries.append((f"{architecture}.rope.scaling.type", "str", "linear"))
        entries.append((f"{architecture}.rope.scaling.factor", "f32", c.rope_scale))
    entries.append((f"{architecture}.vocab_size", "u32", c.vocab))
    return entries


def decoder_of(keys: dict[str, Any], architecture: str) -> Decoder:
    """What the keys of a GGUF file say of its tensors' shapes."""

    def own(key: str) -> Any:
        return keys[f"{architecture}.{key}"]

    heads = own("attention.head_count")
    return Decoder(
        vocab=own("vocab_size"), width=own("embedding_length"), layers=own("block_count"),
        ff_width=own("feed_forward_length"), heads=heads, kv_heads=own("attention.head_count_kv"),
        head_dim=keys.get(f"{architecture}.attention.key_length", own("embedding_length") // heads),
        context=0, eps=0, rope_base=0, rope_scale=1, tied=False,
    )  # fmt: skip
