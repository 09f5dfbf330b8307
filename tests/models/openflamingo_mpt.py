"""OpenFlamingo with MPT for the suite: the tower, perceiver and gates of the other one's, around an MPT of four blocks
with slopes instead of positions, norms of queries and keys, no biases, and its embedding as output matrix."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.reference import State, gelu, softmax
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary

from models import openflamingo as neox
from models.openflamingo import (
    IMAGE_ID,
    NUMBERS,
    PERCEIVER,
    PIECES,
    SMALL,
    SMALL_PERCEIVER,
    SMALL_VISION,
    VISION,
    OpenFlamingo,
    OpenFlamingoReference,
    looks,
    vocabulary_of,
    weights_of,
    write_parts,
)

A = "openflamingo_mpt"
MOST = 8.0
MODULES = {
    "attn_norm": "norm_1", "attn_q_norm": "attn.q_ln", "attn_k_norm": "attn.k_ln", "attn_output": "attn.out_proj",
    "ffn_norm": "norm_2", "ffn_up": "ffn.up_proj", "ffn_down": "ffn.down_proj",
}  # fmt: skip
FIRST = {  # the same modules in the first MPT (mosaic_gpt)
    "norm_1": "ln_1", "norm_2": "ln_2", "ffn.up_proj": "mlp.mlp_up", "ffn.down_proj": "mlp.mlp_down",
}  # fmt: skip


def tensor_shapes(
    numbers: dict[str, int], perceiver: dict[str, int], vision: dict[str, int], vocab: int, qk_norm: bool = True
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in neox.tensor_shapes(numbers, perceiver, vision, vocab).items():
        language = name.startswith(("blk.", "output")) and ".cross." not in name
        if not (language and name.endswith(".bias")) and name != "output.weight":
            shapes[name] = shape
        if qk_norm and language and name.endswith("attn_v.weight"):
            shapes |= {name.replace("attn_v", f"attn_{n}_norm"): shape[:1] for n in "qk"}
    return shapes


def metadata_of(other: dict[str, Any], qk_norm: bool = True) -> dict[str, Any]:
    """Every key of a complete file, from the other model's."""
    found = {
        key.replace(f"{neox.A}.", f"{A}."): entry
        for key, entry in other.items()
        if not key.startswith(f"{neox.A}.rope.")
    }
    return found | {
        "general.architecture": ("str", A),
        "clip.projector_type": ("str", A),
        f"{A}.attention.max_alibi_bias": ("f32", MOST),
        f"{A}.attention.qk_norm": ("bool", qk_norm),
    }


def slopes_of(heads: int, most: float) -> list[float]:
    """MPT's gen_slopes: powers of 2^(-most / n), n the power of two from `heads` on; then every second one first."""
    n = 1
    while n < heads:
        n *= 2
    slopes = [2.0 ** -(i * most / n) for i in range(1, n + 1)]
    return slopes if n == heads else (slopes[1::2] + slopes[::2])[:heads]


def sloped(q: np.ndarray, k: np.ndarray, v: np.ndarray, slopes: list[float], first: int) -> np.ndarray:
    """Causal attention whose scores fall by a head's slope for every position between a key and the query."""
    rows, width = q.shape
    head = width // len(slopes)
    out = np.empty_like(q)
    distance = np.arange(len(k))[None, :] - (first + np.arange(rows))[:, None]
    for h, slope in enumerate(slopes):
        at = slice(h * head, (h + 1) * head)
        scores = q[:, at] @ k[:, at].T * q.dtype.type(head**-0.5) + (slope * distance).astype(q.dtype)
        out[:, at] = softmax(np.where(distance <= 0, scores, q.dtype.type(-np.inf))) @ v[:, at]
    return out


class OpenFlamingoMptReference(OpenFlamingoReference):
    """OpenFlamingo over weights by GGUF name (open_flamingo, transformers MptForCausalLM and CLIPVisionModel; MPT's own
    code for norms of queries and keys)."""

    def plain_norm(self, x: np.ndarray, name: str) -> np.ndarray:
        """Layer norm without beta."""
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(self.eps))
        return centred / scale * self.weights[name + ".weight"]

    def forward(self, state: State, ids: list[int], vectors: dict[int, np.ndarray]) -> tuple[np.ndarray, State]:
        """MptModel, whose attention has its position in its scores alone."""
        w, first = self.weights, state.length
        slopes = slopes_of(self.heads, self.own["attention.max_alibi_bias"])
        x = w["token_embd.weight"][ids]
        keys, values = [], []
        for i in range(self.layers):
            b = f"blk.{i}."
            if looks(i, self.own["cross_attention.every"]):
                x = self.look(i, x, first)
            h = self.plain_norm(x, b + "attn_norm")
            q, k, v = (h @ w[f"{b}attn_{n}.weight"].T for n in "qkv")
            if self.own["attention.qk_norm"]:
                q, k = self.plain_norm(q, b + "attn_q_norm"), self.plain_norm(k, b + "attn_k_norm")
            keys.append(np.concatenate([state.keys[i], k]))
            values.append(np.concatenate([state.values[i], v]))
            x = x + sloped(q, keys[i], values[i], slopes, first) @ w[b + "attn_output.weight"].T
            up = gelu(self.plain_norm(x, b + "ffn_norm") @ w[b + "ffn_up.weight"].T)
            x = x + up @ w[b + "ffn_down.weight"].T
        logits = self.plain_norm(x, "output_norm") @ w["token_embd.weight"].T
        return logits, State(keys, values, first + len(ids))


class OpenFlamingoMpt(OpenFlamingo):
    """The same requests."""

    architecture = A
    accepted: ClassVar = {
        **{key.replace(f"{neox.A}.", f"{A}."): v for key, v in OpenFlamingo.accepted.items() if ".rope." not in key},
        f"{A}.attention.max_alibi_bias": {0.5, 1, "max"},
        f"{A}.attention.qk_norm": {1},
    }

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits."""
        vocabulary = TinyVocabulary(PIECES.pieces, [0.0] * len(PIECES.pieces), PIECES.types)
        weights = weights_of(tensor_shapes(NUMBERS, PERCEIVER, VISION, len(PIECES.pieces)), seed)
        weights["token_embd.weight"][IMAGE_ID] *= np.float32(0.01)  # no definition's search knows that it never comes
        metadata = metadata_of(neox.metadata_of(NUMBERS, PERCEIVER, VISION, PIECES, 32))
        return Tiny(TinyConfig(), vocabulary, weights, metadata)

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> OpenFlamingoMptReference:
        """Above."""
        return OpenFlamingoMptReference(metadata, weights)

    def small(self) -> GgufContent:
        """Few words, but all bytes: a vocabulary without them is refused."""
        bpe = vocabulary_of(["a", "An", "image", "of"], tuple(f"Ġplain{i}" for i in range(8)))
        metadata = metadata_of(neox.metadata_of(SMALL, SMALL_PERCEIVER, SMALL_VISION, bpe, 8))
        shapes = tensor_shapes(SMALL, SMALL_PERCEIVER, SMALL_VISION, len(bpe.pieces))
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(shapes, 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """As MPT-7B is published."""
        write_parts(folder, *published(self.tiny.weights), config_of())
        return folder


def config_of(first: bool = False, **changes: Any) -> dict[str, Any]:
    """The language model's config.json; `first`: of the first MPT."""
    n = NUMBERS
    sizes = {
        "d_model": n["embedding_length"], "n_heads": n["attention.head_count"], "n_layers": n["block_count"],
        "max_seq_len": n["context_length"], "vocab_size": len(PIECES.pieces) - 2, "no_bias": True,
    }  # fmt: skip
    if first:
        own = {"alibi": True, "alibi_bias_max": 8, "attn_qk_ln": True, "attn_clip_qkv": None, "mlp_ratio": 2}
        return {"model_type": "mosaic_gpt", **sizes, **own} | changes
    attention = {"alibi": True, "alibi_bias_max": 8, "qk_ln": True, "clip_qkv": None, "attn_impl": "torch"}
    return {"model_type": "mpt", **sizes, "expansion_ratio": 2, "attn_config": attention} | changes


def published(
    weights: dict[str, np.ndarray], first: bool = False
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """-> (what was trained, the language model, the tower) under their authors' names; `first`: the first MPT's."""
    own = {n: w for n, w in weights.items() if n.startswith(("blk.", "token_embd", "output")) and ".cross." not in n}
    rest, _, tower = neox.published({name: w for name, w in weights.items() if name not in own})
    trained = {name.replace("gpt_neox.layers", "transformer.blocks"): w for name, w in rest.items()}
    language: dict[str, Any] = {}
    for name, w in own.items():
        parts = name.split(".")
        if name == "token_embd.weight":
            trained["lang_encoder.transformer.wte.weight"], language["transformer.wte.weight"] = w, w[:-2] + 1
        elif name == "output_norm.weight":
            language[f"transformer.{'ln_f' if first else 'norm_f'}.weight"] = w
        elif parts[2] == "attn_q":
            three = [weights[f"blk.{parts[1]}.attn_{n}.weight"] for n in "qkv"]
            language[f"transformer.blocks.{parts[1]}.attn.Wqkv.weight"] = np.concatenate(three)
        elif parts[2] not in ("attn_k", "attn_v"):
            module = MODULES[parts[2]]
            module = FIRST.get(module, module) if first else module
            language[f"transformer.blocks.{parts[1]}.{module}.weight"] = w
    return trained, language, tower
