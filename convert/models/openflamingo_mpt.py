"""OpenFlamingo with an MPT; patch_flamingo.py has what it shares with OpenFlamingo's others, and what a checkpoint is.
The language model's config.json says that it is an MPT; it may be of the first one's kind (mosaic_gpt), whose settings
and tensors have other names.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from ..gguf import Entry
from ..settings import Section
from ..sources.hf import LANGUAGE
from ..sources.tensor import SourceTensor
from . import openflamingo, patch_flamingo
from .flamingo import Rows
from .patch_flamingo import Config, Language, cut

NAME, ARCHITECTURE = "OpenFlamingo with MPT", "openflamingo_mpt"
IGNORED = (".position_ids", ".attn_bias")  # buffers
TIED: dict[str, str] = {}

_FIRST = "mosaic_gpt"
_KINDS = ("mpt", _FIRST)
_RENAMED = {  # modules of the first kind
    ".ln_1.": ".norm_1.",
    ".ln_2.": ".norm_2.",
    ".ln_f.": ".norm_f.",
    ".mlp.mlp_up.": ".ffn.up_proj.",
    ".mlp.mlp_down.": ".ffn.down_proj.",
}


@dataclass(frozen=True)
class MptConfig(Config):
    """With slopes instead of positions."""

    most_slope: float = 0.0  # the exponent of the flattest head's slope
    qk_norm: bool = False


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is that of an OpenFlamingo's folder whose language model is an MPT."""
    language = settings.get(LANGUAGE)
    is_mpt = isinstance(language, dict) and language.get("model_type") in _KINDS
    return settings.get("model_type") == ARCHITECTURE or (openflamingo.recognises(settings) and is_mpt)


class Mpt(Language):
    """No biases and no betas, the embedding as output matrix; queries, keys and values lie behind each other."""

    architecture = ARCHITECTURE
    card = openflamingo.CARD
    prompts: ClassVar[dict[str, str]] = openflamingo.PROMPTS
    embedding, head, tied = "transformer.wte.weight", "lm_head.weight", True
    blocks = "transformer.blocks."

    def read(self, settings: dict[str, Any], c: Config) -> MptConfig:
        """Its config.json: what concerns attention has an object of its own, or keys of its own in the first kind."""
        text = Section(settings, "")
        first = text.only("model_type", *_KINDS) == _FIRST
        inner = text if first else Section(text.get("attn_config", {}), "attn_config")
        own = "attn_" if first else ""
        for key in ("softmax_scale", f"{own}clip_qkv"):
            if inner.settings.get(key) is not None:
                raise inner.bad(key, "none")
        if inner.settings.get("alibi") is not True:
            raise inner.bad("alibi", "true: positions of another kind are not supported")
        inner.only("prefix_lm", False)
        inner.only("attn_type", "multihead_attention")
        if text.settings.get("logit_scale") is not None:
            raise text.bad("logit_scale", "none")
        if text.get("no_bias", not first) is not True:  # the default of each kind's class
            raise text.bad("no_bias", "true")
        text.only("norm_type", "low_precision_layernorm", "layernorm")
        text.only("tie_word_embeddings", True)
        width, heads = text.whole("d_model", 2048), text.whole("n_heads", 16)
        if width % heads:
            raise text.bad("d_model", f"a multiple of {heads} heads")
        sizes = {
            "vocab": text.whole("vocab_size", 50368),
            "width": width,
            "layers": text.whole("n_layers", 24, 1000),
            "ff_width": width * text.whole("mlp_ratio" if first else "expansion_ratio", 4, 64),
            "heads": heads,
            "context": text.whole("max_seq_len", 2048),
            "eps": text.real("layer_norm_epsilon", 1e-5, 0, 1),
            "most_slope": inner.real("alibi_bias_max", 8, 0, 64.001),
            "qk_norm": bool(inner.only(f"{own}qk_ln", False, True)),
        }
        return MptConfig(**(vars(c) | sizes))

    def of_file(self, keys: dict[str, Any], c: Config) -> MptConfig:
        """Norms of queries and keys have tensors."""
        return MptConfig(**vars(c), qk_norm=keys[f"{ARCHITECTURE}.attention.qk_norm"])

    def entries(self, c: MptConfig) -> list[Entry]:
        """Slopes and norms of attention."""
        return [
            (f"{ARCHITECTURE}.attention.max_alibi_bias", "f32", c.most_slope),
            (f"{ARCHITECTURE}.attention.qk_norm", "bool", c.qk_norm),
        ]

    def block(self, c: MptConfig, n: int) -> Rows:
        """MptBlock."""
        source, name, d = f"{self.blocks}{n}.", f"blk.{n}.", c.width
        yield source + "norm_1.weight", name + "attn_norm.weight", (d,)
        for part in "qkv":
            yield f"{source}attn.{part}.weight", f"{name}attn_{part}.weight", (d, d)
        for part in "qk" if c.qk_norm else "":
            yield f"{source}attn.{part}_ln.weight", f"{name}attn_{part}_norm.weight", (d,)
        yield source + "attn.out_proj.weight", name + "attn_output.weight", (d, d)
        yield source + "norm_2.weight", name + "ffn_norm.weight", (d,)
        yield source + "ffn.up_proj.weight", name + "ffn_up.weight", (c.ff_width, d)
        yield source + "ffn.down_proj.weight", name + "ffn_down.weight", (d, c.ff_width)

    def last_norm(self, c: MptConfig) -> Rows:
        """Without beta."""
        yield "transformer.norm_f.weight", "output_norm.weight", (c.width,)

    def split(self, tensors: dict[str, SourceTensor], c: MptConfig) -> dict[str, SourceTensor]:
        """Queries, then keys, then values; modules of the first kind have the names of the others."""
        found: dict[str, SourceTensor] = {}
        for name, tensor in tensors.items():
            known = re.sub("|".join(map(re.escape, _RENAMED)), lambda m: _RENAMED[m.group()], name)
            if known.endswith(".attn.Wqkv.weight"):
                for part, third in zip("qkv", cut(tensor, 3), strict=True):
                    found[known.replace(".Wqkv.", f".{part}.")] = third
            else:
                found[known] = tensor
        return found


_MPT = Mpt()
read_config = patch_flamingo.read_config
tensor_table = partial(patch_flamingo.tensor_table, _MPT)
fit = partial(patch_flamingo.fit, _MPT)
read_vocabulary = partial(patch_flamingo.read_vocabulary, _MPT)
metadata = partial(patch_flamingo.metadata, _MPT)
check = partial(patch_flamingo.check, _MPT)
