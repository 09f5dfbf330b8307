"""Storage types of the tensors that KOSMOS does not have."""

import math

import pytest

from kosmos_edge import hub
from kosmos_edge.convert import recipe as recipes
from kosmos_edge.convert.recipe import RECIPES, choose_type, estimate, find_recipe, stored_bytes, wanted_type
from kosmos_edge.errors import KosmosError

Q4 = find_recipe("q4_k_m")


def test_storage_types_are_listed_once():
    """Every row of the table has its place in the list, and the hub goes by the same one."""
    assert set(recipes._ROWS) == set(RECIPES) == set(hub.TYPES)
    assert list(RECIPES) == list(hub.TYPES) and hub.TYPES[0] == recipes.DEFAULT
    assert all(find_recipe(recipe.label) is recipe for recipe in RECIPES.values())


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_output_matrix_keeps_its_bits_where_it_is_its_own(recipe):
    shape = (32000, 2048)
    tied = choose_type(recipe, "token_embd.weight", shape, 22)
    assert choose_type(recipe, "output.weight", shape, 22, tied=False) == tied == recipe.output
    assert choose_type(recipe, "token_embd.weight", shape, 22, tied=False) == recipe.decoder


def test_cross_attention_is_stored_like_the_block_that_it_precedes():
    for part, shape in (("attn_q", (4096, 4096)), ("attn_v", (4096, 1280)), ("ffn_down", (4096, 11008))):
        for layer in (0, 4, 31):
            own = choose_type(Q4, f"blk.{layer}.{part}.weight", shape, 32)
            assert choose_type(Q4, f"blk.{layer}.cross.{part}.weight", shape, 32) == own
    assert choose_type(Q4, "blk.0.cross.attn_v.weight", (4096, 1280), 32) == "Q6_K"
    assert choose_type(Q4, "blk.4.cross.attn_v.weight", (4096, 1280), 32) == "Q4_K"
    for name in ("attn_alpha", "ffn_alpha", "attn_norm.weight", "attn_q_norm.weight"):
        assert choose_type(Q4, f"blk.4.cross.{name}", (128,), 32) == "F32"


def test_projectors_and_learned_positions():
    for name in ("mm.0.weight", "mm.2.weight"):
        assert choose_type(Q4, name, (4096, 1024), 32) == "Q8_0"
    assert choose_type(Q4, "mm.2.bias", (4096,), 32) == "F32"
    assert choose_type(Q4, "position_embd.weight", (2050, 2560), 32) == "F32"
    assert choose_type(Q4, "v.patch_embd.bias", (1152,), 32) == "F32"
    for name in ("v.row_embd.weight", "v.col_embd.weight", "segment_embd.weight"):
        assert choose_type(Q4, name, (4096, 1536), 32) == "F32"


@pytest.mark.parametrize(
    "name", ["output.weight", "token_embd.weight", "blk.1.cross.attn_q.weight", "blk.0.ffn_gate.weight"]
)
def test_rows_of_other_lengths_fall_back_to_blocks_of_32(name):
    assert choose_type(Q4, name, (100, 1408), 24, tied=False) == "Q8_0"
    assert wanted_type(Q4, name, (100, 1408), 24, tied=False) in ("Q4_K", "Q6_K")
    assert choose_type(Q4, name, (100, 588), 24, tied=False) == "F16"


@pytest.mark.parametrize("name", ["output_scale.weight", "blk.x.attn_q.weight", "blk.0.a.b.attn_q.weight", "q.weight"])
def test_a_tensor_without_a_rule_is_no_surprise(name):
    with pytest.raises(KosmosError, match=f"no storage type is known for the tensor {name}"):
        choose_type(Q4, name, (64, 64), 2)


def test_an_estimate_sees_whether_the_embedding_is_the_output_matrix():
    shape = (1000, 256)
    one = estimate([("token_embd.weight", shape)], "q4_k_m", 2)
    assert one == stored_bytes("Q6_K", shape)
    two = estimate(iter([("token_embd.weight", shape), ("output.weight", shape)]), "q4_k_m", 2)
    assert two == one + stored_bytes("Q4_K", shape) < 2 * one
    assert math.prod(shape) == 256_000
