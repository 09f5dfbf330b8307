"""T5's encoder and decoder, of version 1.1 as Flan-T5 has them, as parts of models: settings, tensors, metadata."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from kosmos_edge.errors import ModelCorrupt

from ..gguf import Entry
from ..settings import Section
from ..sources.tensor import SourceTensor
from ..unigram import UnigramVocabulary

_MODEL = "language_model."
EMBEDDING, HEAD = _MODEL + "shared.weight", _MODEL + "lm_head.weight"
# Some versions of transformers store the embedding once more for each stack.
TIED = {f"{_MODEL}{stack}.embed_tokens.weight": EMBEDDING for stack in ("encoder", "decoder")}
_CONTEXT = 512  # positions that it was trained on; config.json says so in n_positions, if at all


@dataclass(frozen=True, kw_only=True)
class Stacks:
    """Sizes of both stacks. vocab: rows of the embedding; once the vocabulary is known, its number of tokens."""

    vocab: int
    width: int
    layers: int  # of the decoder
    encoder_layers: int
    ff_width: int
    heads: int
    head_dim: int
    context: int
    eps: float
    buckets: int
    max_distance: int
    start: int  # the id that answers begin behind


AnyStacks = TypeVar("AnyStacks", bound=Stacks)


def read_stacks(text: Section) -> Stacks:
    """The sizes in a text_config; what is absent is T5's. ModelCorrupt for what version 1.1 does not have."""
    text.only("model_type", "t5")
    text.only("feed_forward_proj", "gated-gelu")
    if text.get("feed_forward_proj", None) is None:  # absent: ReLU
        raise text.bad("feed_forward_proj", '"gated-gelu"')
    # T5 of version 1.0 scales what goes into its output matrix; newer versions of transformers say it by its own name.
    if text.get("scale_decoder_outputs", text.get("tie_word_embeddings", True)) is not False:
        key = "scale_decoder_outputs" if text.get("scale_decoder_outputs", None) is not None else "tie_word_embeddings"
        raise text.bad(key, "false")
    layers, start = text.whole("num_layers", 6, 512), text.get("decoder_start_token_id", 0)
    if type(start) is not int or start < 0:
        raise text.bad("decoder_start_token_id", "a token id")
    return Stacks(
        vocab=text.whole("vocab_size", 32128),
        width=text.whole("d_model", 512),
        layers=text.whole("num_decoder_layers", layers, 512),
        encoder_layers=layers,
        ff_width=text.whole("d_ff", 2048),
        heads=text.whole("num_heads", 8),
        head_dim=text.whole("d_kv", 64),
        context=text.whole("n_positions", _CONTEXT),
        eps=text.real("layer_norm_epsilon", 1e-6, 0, 1),
        buckets=text.whole("relative_attention_num_buckets", 32),
        max_distance=text.whole("relative_attention_max_distance", 128),
        start=start,
    )


def stacks_table(c: Stacks) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Their rows in a model's table of tensors."""
    d = c.width
    yield EMBEDDING, "token_embd.weight", (c.vocab, d)
    yield from _stack(c, "encoder", "enc.", c.encoder_layers)
    yield from _stack(c, "decoder", "", c.layers)
    yield HEAD, "output.weight", (c.vocab, d)


def _stack(c: Stacks, stack: str, prefix: str, layers: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    d, inner, source = c.width, c.heads * c.head_dim, f"{_MODEL}{stack}."
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield source + bias, prefix + "attn_rel_b.weight", (c.buckets, c.heads)

    def attention(layer: str, kind: str, name: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        yield layer + "layer_norm.weight", name + "attn_norm.weight", (d,)
        for part in "qkv":
            yield f"{layer}{kind}.{part}.weight", f"{name}attn_{part}.weight", (inner, d)
        yield f"{layer}{kind}.o.weight", name + "attn_output.weight", (d, inner)

    for n in range(layers):
        block, name, last = f"{source}block.{n}.layer.", f"{prefix}blk.{n}.", 1
        yield from attention(block + "0.", "SelfAttention", name)
        if stack == "decoder":
            yield from attention(block + "1.", "EncDecAttention", name + "cross.")
            last = 2
        yield f"{block}{last}.layer_norm.weight", name + "ffn_norm.weight", (d,)
        feed = f"{block}{last}.DenseReluDense."
        yield feed + "wi_0.weight", name + "ffn_gate.weight", (c.ff_width, d)
        yield feed + "wi_1.weight", name + "ffn_up.weight", (c.ff_width, d)
        yield feed + "wo.weight", name + "ffn_down.weight", (d, c.ff_width)
    yield source + "final_layer_norm.weight", prefix + "output_norm.weight", (d,)


def fit_stacks(tensors: dict[str, SourceTensor], c: AnyStacks, vocabulary: UnigramVocabulary) -> AnyStacks:
    """Gives an embedding that is the head, too, a head; cuts the rows of both that only pad the vocabulary."""
    tokens = len(vocabulary.tokens)
    if tokens > c.vocab:
        raise ModelCorrupt(f"{vocabulary.where}: {tokens} tokens, the embedding has {c.vocab} rows")
    if EMBEDDING in tensors:
        tensors.setdefault(HEAD, tensors[EMBEDDING])
    for name in (EMBEDDING, HEAD, *TIED):
        if name in tensors and tensors[name].shape == (c.vocab, c.width):
            tensors[name] = replace(tensors[name], shape=(tokens, c.width))
    return replace(c, vocab=tokens)


def stacks_entries(c: Stacks, architecture: str) -> list[Entry]:
    """<architecture>.* of a GGUF file."""
    a = architecture
    return [
        (f"{a}.context_length", "u32", c.context),
        (f"{a}.embedding_length", "u32", c.width),
        (f"{a}.block_count", "u32", c.layers),
        (f"{a}.encoder.block_count", "u32", c.encoder_layers),
        (f"{a}.feed_forward_length", "u32", c.ff_width),
        (f"{a}.attention.head_count", "u32", c.heads),
        (f"{a}.attention.key_length", "u32", c.head_dim),
        (f"{a}.attention.layer_norm_rms_epsilon", "f32", c.eps),
        (f"{a}.attention.relative_buckets_count", "u32", c.buckets),
        (f"{a}.attention.relative_max_distance", "u32", c.max_distance),
        (f"{a}.decoder_start_token_id", "u32", c.start),
        (f"{a}.vocab_size", "u32", c.vocab),
    ]


def stacks_of(keys: Mapping[str, Any], architecture: str) -> Stacks:
    """What the keys of a GGUF file say of them."""

    def own(key: str) -> Any:
        return keys[f"{architecture}.{key}"]

    return Stacks(
        vocab=own("vocab_size"), width=own("embedding_length"), layers=own("block_count"),
        encoder_layers=own("encoder.block_count"), ff_width=own("feed_forward_length"),
        heads=own("attention.head_count"), head_dim=own("attention.key_length"), context=0, eps=0,
        buckets=own("attention.relative_buckets_count"), max_distance=0, start=0,
    )  # fmt: skip
