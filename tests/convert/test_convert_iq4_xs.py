"""iq4_xs: which tensors get types of tables."""

import pytest

from kosmos_edge.convert.recipe import choose_type, find_recipe

NAMES = ["attn_q", "attn_v", "attn_output", "ffn_up", "ffn_down"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [(f"blk.{layer}.{part}.weight", (2048, 2048)) for layer in range(24) for part in NAMES]
    + [
        ("token_embd.weight", (65037, 2048)),
        ("v.blk.0.attn_v.weight", (1024, 1024)),
        ("mm.dense.weight", (2048, 1024)),
    ],
)
def test_it_is_q4_k_m_with_smaller_blocks_of_4_bits(name, shape):
    theirs = choose_type(find_recipe("q4_k_m"), name, shape, 24)
    assert choose_type(find_recipe("iq4_xs"), name, shape, 24) == {"Q4_K": "IQ4_XS"}.get(theirs, theirs)


@pytest.mark.parametrize(
    ("name", "cols", "dtype"),
    [
        ("blk.3.attn_q.weight", 512, "IQ4_XS"),
        ("blk.3.attn_q.weight", 192, "IQ4_NL"),
        ("blk.3.attn_q.weight", 72, "F16"),
        ("v.blk.0.attn_q.weight", 192, "Q8_0"),
    ],
)
def test_rows_that_do_not_fit(name, cols, dtype):
    assert choose_type(find_recipe("iq4_xs"), name, (192, cols), 24) == dtype
