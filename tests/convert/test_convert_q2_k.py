"""q2_k: which tensors get two bits, and which more."""

import math

import pytest

from kosmos_edge.convert.recipe import choose_type, estimate, find_recipe

RECIPE = find_recipe("Q2_K")


@pytest.mark.parametrize("layer", range(24))
def test_three_bits_where_llama_cpp_has_them(layer):
    types = {
        part: choose_type(RECIPE, f"blk.{layer}.{part}.weight", (2048, 2048), 24)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down")
    }
    assert [part for part, dtype in types.items() if dtype == "Q3_K"] == ["attn_v", "attn_output", "ffn_down"]
    assert set(types.values()) == {"Q2_K", "Q3_K"}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("token_embd.weight", (65037, 2048)),
        ("v.blk.0.attn_output.weight", (1024, 1024)),
        ("mm.dense.weight", (2048, 1024)),
    ],
)
def test_the_rest_is_that_of_q4_k_m(name, shape):
    assert choose_type(RECIPE, name, shape, 24) == choose_type(find_recipe("q4_k_m"), name, shape, 24)


def test_rows_that_do_not_fit():
    assert choose_type(RECIPE, "blk.0.attn_q.weight", (192, 192), 24) == "Q8_0"
    assert choose_type(RECIPE, "blk.0.attn_q.weight", (192, 72), 24) == "F16"


def test_bits_of_the_layers():
    """KOSMOS-2's: four matrices of attention, two of the feed-forward net."""
    shapes = {part: (2048, 2048) for part in ("attn_q", "attn_k", "attn_v", "attn_output")}
    shapes |= {"ffn_up": (8192, 2048), "ffn_down": (2048, 8192)}
    layers = [(f"blk.{i}.{part}.weight", shape) for i in range(24) for part, shape in shapes.items()]
    bits = estimate(layers, "q2_k", 24) * 8 / sum(math.prod(shape) for _, shape in layers)
    assert bits == (2.625 * (2 + 4) + 3.4375 * (2 + 4)) / 12
