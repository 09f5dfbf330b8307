"""OpenFlamingo with a GPT-NeoX (RedPajama-INCITE); patch_flamingo.py has what it shares with OpenFlamingo's others, and
what a checkpoint is. Its config.json: {"model_type": "openflamingo", "cross_attn_every_n_layers": n}.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from ..gguf import Entry
from ..settings import Section
from ..sources.tensor import SourceTensor, stacked
from . import patch_flamingo
from .clip import weight_and_bias
from .flamingo import Rows
from .patch_flamingo import Config, Language, cut

NAME, ARCHITECTURE = "OpenFlamingo", "openflamingo"
IGNORED = (".position_ids", ".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")  # buffers
TIED: dict[str, str] = {}

PROMPTS = {  # as open_flamingo evaluates
    "caption": "{image}Output:",
    "caption_detailed": "{image}Output:",
    "question": "{image}Question:{question} Short answer:",
}
CARD = {
    "name": "OpenFlamingo",
    "basename": "OpenFlamingo",
    "version": "v1",
    "size_label": "",  # counted
    "description": "OpenFlamingo: text about several pictures after examples; all its parts in one file",
    "license": "mit",
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}


@dataclass(frozen=True)
class NeoxConfig(Config):
    """With rotary positions in the first values of every head."""

    rope_base: float = 0.0
    rope_dims: int = 0


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is that of an OpenFlamingo's folder."""
    return "openflamingo" in (settings.get("model_type"), settings.get("family"))


class Neox(Language):
    """GPT-NeoX: biases, an output matrix of its own; queries, keys and values of a head lie together."""

    architecture = ARCHITECTURE
    card = CARD
    prompts: ClassVar[dict[str, str]] = PROMPTS
    embedding, head, tied = "gpt_neox.embed_in.weight", "embed_out.weight", False
    blocks = "gpt_neox.layers."

    def read(self, settings: dict[str, Any], c: Config) -> NeoxConfig:
        """Its config.json."""
        text = Section(settings, "")
        text.only("model_type", "gpt_neox")
        text.only("hidden_act", "gelu")
        text.only("attention_bias", True)
        text.only("tie_word_embeddings", False)
        if text.only("use_parallel_residual", True, False) is not False:
            raise text.bad("use_parallel_residual", "false: halves of a block that follow each other")
        width, heads = text.whole("hidden_size", 6144), text.whole("num_attention_heads", 64)
        if width % heads:
            raise text.bad("hidden_size", f"a multiple of {heads} heads")
        rope = Section(text.get("rope_parameters", {}), "rope_parameters")
        rope.only("rope_type", "default")
        if text.get("rope_scaling", None) is not None:
            raise text.bad("rope_scaling", "none")
        part = rope.real("partial_rotary_factor", text.real("rotary_pct", 0.25, 0, 1.0001), 0, 1.0001)
        sizes = {
            "vocab": text.whole("vocab_size", 50432),
            "width": width,
            "layers": text.whole("num_hidden_layers", 44, 1000),
            "ff_width": text.whole("intermediate_size", 24576),
            "heads": heads,
            "context": text.whole("max_position_embeddings", 2048),
            "eps": text.real("layer_norm_eps", 1e-5, 0, 1),
            "rope_base": rope.real("rope_theta", text.real("rotary_emb_base", 10000.0, 1, 1e9), 1, 1e9),
            "rope_dims": int(width // heads * part),
        }
        return NeoxConfig(**(vars(c) | sizes))

    def of_file(self, keys: dict[str, Any], c: Config) -> NeoxConfig:
        """Positions have no tensors."""
        return NeoxConfig(**vars(c))

    def entries(self, c: NeoxConfig) -> list[Entry]:
        """Rotary positions."""
        return [
            (f"{ARCHITECTURE}.rope.freq_base", "f32", c.rope_base),
            (f"{ARCHITECTURE}.rope.dimension_count", "u32", c.rope_dims),
        ]

    def block(self, c: NeoxConfig, n: int) -> Rows:
        """GPTNeoXLayer."""
        source, name, d = f"{self.blocks}{n}.", f"blk.{n}.", c.width
        yield from weight_and_bias(source + "input_layernorm", name + "attn_norm", d)
        for part in "qkv":
            yield from weight_and_bias(f"{source}attention.{part}", f"{name}attn_{part}", d, d)
        yield from weight_and_bias(source + "attention.dense", name + "attn_output", d, d)
        yield from weight_and_bias(source + "post_attention_layernorm", name + "ffn_norm", d)
        yield from weight_and_bias(source + "mlp.dense_h_to_4h", name + "ffn_up", c.ff_width, d)
        yield from weight_and_bias(source + "mlp.dense_4h_to_h", name + "ffn_down", d, c.ff_width)

    def last_norm(self, c: NeoxConfig) -> Rows:
        """With beta."""
        yield from weight_and_bias("gpt_neox.final_layer_norm", "output_norm", c.width)

    def split(self, tensors: dict[str, SourceTensor], c: NeoxConfig) -> dict[str, SourceTensor]:
        """A head's queries, keys and values lie together."""
        found: dict[str, SourceTensor] = {}
        for name, tensor in tensors.items():
            if ".attention.query_key_value." not in name or not tensor.shape or tensor.shape[0] % (3 * c.heads):
                found[name] = tensor
                continue
            pieces = cut(tensor, 3 * c.heads)
            for i, part in enumerate("qkv"):
                found[name.replace(".query_key_value.", f".{part}.")] = stacked(pieces[i::3])
        return found


_NEOX = Neox()
read_config = patch_flamingo.read_config
tensor_table = partial(patch_flamingo.tensor_table, _NEOX)
fit = partial(patch_flamingo.fit, _NEOX)
read_vocabulary = partial(patch_flamingo.read_vocabulary, _NEOX)
metadata = partial(patch_flamingo.metadata, _NEOX)
check = partial(patch_flamingo.check, _NEOX)
