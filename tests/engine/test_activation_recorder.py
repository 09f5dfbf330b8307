"""What the engine records of the inputs of every matrix, against the matrices themselves."""

import numpy as np
import pytest
from helpers.api_model import picture, tiny_file
from helpers.tiny import make_tiny

from kosmos_edge import Model, _core


def values(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.float64)


@pytest.fixture(scope="module")
def recorded() -> tuple[_core.ActivationRecorder, list[int]]:
    recorder = _core.ActivationRecorder({"blk.1.ffn_down.weight", "v.blk.0.attn_q.weight"})
    with Model(_core.Engine(str(tiny_file()), device="cpu", recorder=recorder)) as model:
        ids = [list(model.caption(picture(i), ground=True, max_tokens=12).token_ids) for i in range(2)]
    return recorder, ids


def test_recording_changes_no_answer(recorded):
    with Model(_core.Engine(str(tiny_file()), device="cpu")) as model:
        for i, ids in enumerate(recorded[1]):
            assert list(model.caption(picture(i), ground=True, max_tokens=12).token_ids) == ids


def test_every_matrix_has_inputs(recorded):
    matrices = {
        name
        for name, _, shape, *_ in _core.GgufFile(str(tiny_file())).tensors()
        if len(shape) == 2 and not name.endswith(("position_embd.weight", "latent_query"))
    }
    assert set(recorded[0].names()) == matrices | {"v.patch_embd.weight"}


def test_matrices_with_one_input_share_its_sums(recorded):
    q, k, v = (recorded[0].find(f"blk.0.attn_{part}.weight") for part in "qkv")
    assert q.squares == k.squares == v.squares and q.rows == k.rows == v.rows > 24
    assert recorded[0].find("v.blk.0.attn_q.weight").rows == 2 * 17  # of two pictures
    assert recorded[0].find("blk.1.ffn_up.weight").rows < recorded[0].find("blk.0.ffn_up.weight").rows  # the last block


def test_products_are_made_where_they_were_asked_for(recorded):
    for name in ("blk.1.ffn_down.weight", "v.blk.0.attn_q.weight"):
        sums = recorded[0].find(name)
        products = np.frombuffer(sums.products, np.float32).reshape(sums.cols, sums.cols)
        np.testing.assert_allclose(np.diag(products), values(sums.squares), rtol=1e-5)
    assert recorded[0].find("v.blk.0.attn_k.weight").products  # shares them
    assert recorded[0].find("blk.0.ffn_down.weight").products == b""


def test_the_matrices_that_are_folded_at_load_have_inputs_too(recorded):
    """The engine multiplies mm.dense with the key and value matrices; the file does not."""
    weights, find = make_tiny(0).weights, recorded[0].find
    query = weights["mm.latent_query"].astype(np.float64)
    np.testing.assert_allclose(values(find("mm.attn_q.weight").sum), 2 * query.sum(0), rtol=1e-5, atol=1e-4)
    dense = find("mm.dense.weight")
    assert dense.rows == 2 * 17 and find("mm.attn_k.weight").rows == 2 * (17 + 64)
    keys = weights["mm.dense.weight"].astype(np.float64) @ values(dense.sum) + dense.rows * weights["mm.dense.bias"]
    np.testing.assert_allclose(values(find("mm.attn_k.weight").sum), keys + 2 * query.sum(0), rtol=1e-3, atol=1e-3)
    assert find("mm.attn_k.weight").squares == find("mm.attn_v.weight").squares
    assert find("mm.attn_out.weight").rows == 2 * 64


def random_rows(rows: int, cols: int) -> np.ndarray:
    return np.random.default_rng(rows * cols).standard_normal((rows, cols)).astype(np.float32)


def products_of(parts: list[np.ndarray]) -> np.ndarray:
    recorder = _core.ActivationRecorder({"m"})
    for x in parts:
        recorder.add(["m"], x, x.shape[1])
    cols = parts[0].shape[1]
    return np.frombuffer(recorder.find("m").products, np.float32).reshape(cols, cols)


@pytest.mark.parametrize("cols", [1, 2, 33, 600])
@pytest.mark.parametrize("rows", [1, 7, 128, 301])
def test_products_against_float64(rows: int, cols: int) -> None:
    x = random_rows(rows, cols)
    exact = np.tril(x.astype(np.float64).T @ x)
    found = products_of([x])
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.all(np.abs(found - exact) <= 4e-7 * scale)
    assert np.all(np.triu(found, 1) == 0)


def test_products_depend_on_rows_and_not_on_how_many_come_at_once() -> None:
    x = random_rows(300, 70)
    whole = products_of([x])
    for sizes in ([1] * 300, [127, 1, 172], [299, 1]):
        parts = np.split(x, np.cumsum(sizes)[:-1])
        assert products_of(parts).tobytes() == whole.tobytes()


def test_rows_may_come_after_a_look() -> None:
    x, recorder = random_rows(50, 40), _core.ActivationRecorder({"m"})
    recorder.add(["m"], x[:20], 40)
    assert recorder.find("m").rows == 20
    recorder.add(["m"], x[20:], 40)
    found = np.frombuffer(recorder.find("m").products, np.float32).reshape(40, 40)
    np.testing.assert_allclose(found, np.tril(x.T @ x), rtol=1e-4, atol=1e-4)
