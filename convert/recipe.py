"""Which tensor is stored in which type.

The mixes follow llama.cpp's (src/llama-quant.cpp): in the K-quant mixes the output matrix is Q6_K, be it the embedding
(tied) or one of its own, beside which the embedding is stored like the blocks. Attention values and ffn_down get more
bits (q4_k_m: Q6_K, q3_k_m: Q4_K) in the first and last eighth of the layers and in every third between, in
cross-attention, too; in q2_k they are Q3_K in every layer, as attention outputs are. iq4_xs is q4_k_m with IQ4_XS in
the place of Q4_K. Vision and projector stay at 6 and 8 bits: boxes suffer first there. Norms, biases, those by distance
too, gates, class, position and segment embeddings and latent queries are always F32.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kosmos_edge.errors import InvalidRequest, KosmosError
from kosmos_edge.storage import TYPES as STORAGE_TYPES
from kosmos_edge.storage import label

# GGUF's type name -> (type id, values per block, bytes per block): the types that recipes use.
TYPES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "BF16": (30, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q8_0": (8, 32, 34),
    "Q2_K": (10, 256, 84),
    "Q3_K": (11, 256, 110),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
    "IQ4_NL": (20, 32, 18),
    "IQ4_XS": (23, 256, 136),
}


@dataclass(frozen=True)
class Recipe:
    """One value of `--type`. file_type: GGUF's general.file_type (llama.cpp's ftype)."""

    name: str
    file_type: int
    decoder: str
    decoder_more: str  # attn_v and ffn_down of the layers that get more bits; `always_more` of all layers
    output: str  # the output matrix: output.weight, or the embedding where that is the output matrix, too
    vision: str
    projector: str
    always_more: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How the type is spelled in file names."""
        return label(self.name)


_ROWS = {
    recipe.name: recipe
    for recipe in (
        Recipe("f32", 0, "F32", "F32", "F32", "F32", "F32"),
        Recipe("f16", 1, "F16", "F16", "F16", "F16", "F16"),
        Recipe("bf16", 32, "BF16", "BF16", "BF16", "BF16", "BF16"),
        Recipe("q8_0", 7, "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0"),
        Recipe("q6_k", 18, "Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q8_0"),
        Recipe("q5_k", 17, "Q5_K", "Q6_K", "Q6_K", "Q6_K", "Q8_0"),
        Recipe("q4_k_m", 15, "Q4_K", "Q6_K", "Q6_K", "Q6_K", "Q8_0"),
        Recipe("iq4_xs", 30, "IQ4_XS", "Q6_K", "Q6_K", "Q6_K", "Q8_0"),
        Recipe("q3_k_m", 12, "Q3_K", "Q4_K", "Q6_K", "Q6_K", "Q8_0"),
        Recipe("q2_k", 10, "Q2_K", "Q3_K", "Q6_K", "Q6_K", "Q8_0", ("attn_v", "attn_output", "ffn_down")),
        Recipe("q4_0", 2, "Q4_0", "Q4_0", "Q6_K", "Q6_K", "Q8_0"),
    )
}
RECIPES = {name: _ROWS[name] for name in STORAGE_TYPES}
DEFAULT = STORAGE_TYPES[0]
OUTPUT = "output.weight"  # of a model whose output matrix is not its embedding
_ALWAYS_F32 = {
    "position_embd.weight",
    "attn_rel_b.weight",
    "enc.attn_rel_b.weight",
    "segment_embd.weight",
    "v.class_embd",
    "v.position_embd.weight",
    "v.row_embd.weight",
    "v.col_embd.weight",
    "mm.latent_query",
    "mm.query",
    "mm.position_embd.weight",
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name in any case; `q5_k_m` is `q5_k`."""
    key = name.lower()
    recipe = RECIPES.get("q5_k" if key == "q5_k_m" else key)
    if recipe is None:
        raise InvalidRequest(f"unknown type {name!r}; expected one of {', '.join(RECIPES)}")
    return recipe


def gets_more_bits(layer: int, layers: int) -> bool:
    """llama.cpp's use_more_bits."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def wanted_type(recipe: Recipe, name: str, shape: tuple[int, ...], layers: int, tied: bool = True) -> str:
    """The type that the recipe has in mind for a tensor, whatever its row length.

    layers: of the decoder. tied: the embedding is the output matrix, too; else the model has an OUTPUT.
    """
    if len(shape) == 1 or name in _ALWAYS_F32:
        return "F32"
    if name == "v.patch_embd.weight":  # rows of 3 * 14 * 14 = 588 values: no multiple of a block
        return "F32" if recipe.name == "f32" else "F16"
    if name == OUTPUT or (name == "token_embd.weight" and tied):
        return recipe.output
    if name == "token_embd.weight":
        return recipe.decoder
    if name.startswith("v."):
        return recipe.vision
    if name.startswith("mm."):
        return recipe.projector
    # blk.N.PART.weight, blk.N.cross.PART.weight; of an encoder behind enc.
    parts = name.removeprefix("enc.").split(".")
    if len(parts) not in (4, 5) or parts[0] != "blk" or not parts[1].isdecimal():
        raise KosmosError(f"internal: no storage type is known for the tensor {name}")
    more = parts[-2] in ("attn_v", "ffn_down") and gets_more_bits(int(parts[1]), layers)
    more = more or parts[-2] in recipe.always_more
    return recipe.decoder_more if more else recipe.decoder


def choose_type(recipe: Recipe, name: str, shape: tuple[int, ...], layers: int, tied: bool = True) -> str:
    """The type that is stored: where the row length is no multiple of the wanted type's block Q8_0 (IQ4_NL for IQ4_XS,
    whose table it has), or F16."""
    wanted = wanted_type(recipe, name, shape, layers, tied)
    for dtype in (wanted, "IQ4_NL" if wanted == "IQ4_XS" else "Q8_0", "F16"):
        if shape[-1] % TYPES[dtype][1] == 0:
            return dtype
    raise AssertionError("F16 has blocks of one value")


def stored_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor in the file, without padding."""
    _, values, size = TYPES[dtype]
    return math.prod(shape) // values * size


def estimate(tensors: Iterable[tuple[str, tuple[int, ...]]], type: str, layers: int) -> int:
    """Bytes of all tensors (GGUF name, shape) under a recipe; the file has some 2 MB of vocabulary beside them."""
    recipe = find_recipe(type)
    tensors = list(tensors)
    tied = all(name != OUTPUT for name, _ in tensors)
    return sum(stored_bytes(choose_type(recipe, name, shape, layers, tied), shape) for name, shape in tensors)
