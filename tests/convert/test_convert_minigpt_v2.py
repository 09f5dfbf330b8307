"""MiniGPT-v2's checkpoint in three places: low-rank changes and larger images become plain tensors, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.description import described
from models.minigpt4 import SYSTEM, save
from models.minigpt_v2 import PROMPTS_V2, published

from kosmos_edge import _core
from kosmos_edge.convert import convert, verify
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

OF = described()["minigpt_v2"]
TRAINED = "pretrained_minigpt4_llama2_7b.pth"
Q = "model.layers.0.self_attn.q_proj"
RANK = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OF.write_checkpoint(tmp_path_factory.mktemp("minigpt_v2") / "parts")


def contents(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    file = _core.GgufFile(str(path))
    shapes = {name: shape for name, _, shape, *_ in file.tensors()}
    tensors = {name: np.frombuffer(file.tensor_data(name), "f").reshape(shape) for name, shape in shapes.items()}
    return file.metadata(), tensors


def change(size: tuple[int, int], module: str = Q, adapter: str = ".default") -> dict[str, np.ndarray]:
    """A low-rank change of a matrix under peft's names."""
    rng = np.random.default_rng(3)
    at = f"llama_model.base_model.model.{module}.lora_"
    return {
        f"{at}A{adapter}.weight": rng.normal(size=(RANK, size[1])).astype("f"),
        f"{at}B{adapter}.weight": rng.normal(size=(size[0], RANK)).astype("f"),
    }


def rewrite(folder: Path, edit: Callable[[dict[str, np.ndarray]], object]) -> Path:
    """Changes the trained tensors."""
    state = dict(published(OF.tiny.weights)[1])
    edit(state)
    save(folder / TRAINED, state)
    return folder


def test_the_file_is_what_the_engine_reads(checkpoint: Path, tmp_path: Path) -> None:
    path = convert(checkpoint, tmp_path / "a.gguf", type="f32").output
    metadata, tensors = contents(path)
    assert verify(path) == [] and set(tensors) == set(OF.tiny.weights)
    assert all(np.array_equal(tensors[name], array) for name, array in OF.tiny.weights.items())
    assert metadata["minigpt_v2.prompt.system"] == SYSTEM and "minigpt_v2.text_boxes" not in metadata
    assert metadata["minigpt_v2.projector.merged_features"] == 4
    sources = [text.partition(":")[0] for text in metadata["minigpt_v2.source.sha256"]]
    assert {"eva_vit_g.pth", TRAINED, "config.json", "llama/config.json", "llama/model.safetensors"} <= set(sources)


@pytest.mark.parametrize("adapter", [".default", ""])
@pytest.mark.parametrize("alpha", [None, 8])
def test_low_rank_changes_are_added(checkpoint: Path, tmp_path: Path, adapter: str, alpha: int | None) -> None:
    """alpha / rank of their product, with 16 as the published alpha; the model is MiniGPT-v2 then."""
    folder = shutil.copytree(checkpoint, tmp_path / "m")
    weights = OF.tiny.weights["blk.0.attn_q.weight"]
    added = change(weights.shape, adapter=adapter)
    rewrite(folder, lambda state: state.update(added))
    if alpha is not None:
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | {"lora_alpha": alpha}))
    metadata, tensors = contents(convert(folder, tmp_path / "a.gguf", type="f32").output)
    right, left = added.values()
    expected = weights.astype("d") + (alpha or 16) / RANK * left.astype("d") @ right.astype("d")
    assert np.abs(tensors["blk.0.attn_q.weight"] - expected).max() < 1e-5 * np.abs(expected).max()
    same = set(OF.tiny.weights) - {"blk.0.attn_q.weight"}
    assert all(np.array_equal(tensors[name], OF.tiny.weights[name]) for name in same)
    assert metadata["minigpt_v2.text_boxes"] is True and "minigpt_v2.prompt.system" not in metadata
    prompts = {key: metadata[f"minigpt_v2.prompt.{key}"] for key in PROMPTS_V2}
    assert prompts == PROMPTS_V2
    assert metadata["minigpt_v2.generation.repetition_penalty"] == np.float32(1.05)


def test_positions_of_larger_images_are_interpolated(checkpoint: Path, tmp_path: Path) -> None:
    """By torch's bicubic rule: a grid that is linear stays so inside, and the class' row stays as it is."""
    folder = shutil.copytree(checkpoint, tmp_path / "m")
    settings = json.loads((folder / "config.json").read_text())
    settings["vision_config"]["image_size"] = 112  # 8 x 8 patches instead of 4 x 4
    (folder / "config.json").write_text(json.dumps(settings))
    metadata, tensors = contents(convert(folder, tmp_path / "a.gguf", type="f32").output)
    table, old = tensors["v.position_embd.weight"], OF.tiny.weights["v.position_embd.weight"]
    assert metadata["clip.vision.image_size"] == 112 and table.shape == (65, old.shape[1])
    assert np.array_equal(table[0], old[0])

    def along(grid: np.ndarray) -> np.ndarray:
        """The first axis twice as long; places at -1/4 and +1/4 of a cell."""
        out = []
        for i in range(2 * len(grid)):
            place = (i + 0.5) / 2 - 0.5
            cell = int(np.floor(place))
            t, row = place - cell, 0.0
            for n, d in zip(range(-1, 3), (t + 1, t, 1 - t, 2 - t), strict=True):
                near = 1.25 * d**3 - 2.25 * d**2 + 1
                far = -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3
                row = row + (near if d <= 1 else far) * grid[min(max(cell + n, 0), len(grid) - 1)]
            out.append(row)
        return np.array(out)

    grid = old[1:].astype("d").reshape(4, 4, -1)
    expected = along(along(grid).transpose(1, 0, 2)).transpose(1, 0, 2).reshape(64, -1)
    assert np.abs(table[1:] - expected).max() < 1e-6 * np.abs(expected).max() + 1e-7


def test_a_norm_that_nobody_trained(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "m")
    rewrite(folder, lambda state: [state.pop(f"ln_vision.{kind}") for kind in ("weight", "bias")])
    _, tensors = contents(convert(folder, tmp_path / "a.gguf", type="f32").output)
    assert np.all(tensors["v.post_ln.weight"] == 1) and not tensors["v.post_ln.bias"].any()


def wide(state: dict[str, np.ndarray]) -> None:
    state.update(change((256, 256)))
    state[f"llama_model.base_model.model.{Q}.lora_A.default.weight"] = np.ones((RANK, 8), "f")


def two_ranks(state: dict[str, np.ndarray]) -> None:
    state.update(change((256, 256)))
    state["llama_model.base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"] = np.ones((RANK + 1, 256), "f")


def without(part: str) -> Callable[[dict[str, np.ndarray]], object]:
    def run(state: dict[str, np.ndarray]) -> None:
        state.update(change((256, 256)))
        del state[f"llama_model.base_model.model.{Q}.lora_{part}.default.weight"]

    return run


WRONG: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], type[Exception], str]] = {
    "a change of another size": (wide, ModelCorrupt, r"lora_B.* times .*lora_A.* is no change of .*q_proj"),
    "changes of two ranks": (two_ranks, ModelCorrupt, r"ranks \[4, 5\], expected one rank"),
    "half a change": (without("B"), ModelCorrupt, r"lora_A.* has no lora_B"),
    "the other half": (without("A"), ModelCorrupt, r"lora_B.* has no lora_A"),
    "a change of nothing": (
        lambda state: state.update(change((8, 8), "model.layers.9.self_attn.q_proj")),
        ModelCorrupt,
        "has no tensor to change",
    ),
    "another tensor": (
        lambda state: state.update(temp=np.ones(1, "f")),
        ModelCorrupt,
        "temp .* is none of MiniGPT-v2's",
    ),
    "a product of single features": (
        lambda state: state.update({"llama_proj.weight": np.ones((256, 352), "f")}),
        ModelNotFound,
        "or, of MiniGPT-v2 and of MiniGPT-4 with LLaMA-2, one: the trained product",
    ),
    "a product of two features": (
        lambda state: state.update({"llama_proj.weight": np.ones((256, 704), "f")}),
        ModelCorrupt,
        r"language_projection\.weight has the shape \(256, 704\), expected \(256, 1408\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_supported_is_named(checkpoint: Path, tmp_path: Path, case: str) -> None:
    edit, error, message = WRONG[case]
    folder = rewrite(shutil.copytree(checkpoint, tmp_path / "m"), edit)
    with pytest.raises(error, match=message):
        convert(folder, tmp_path / "a.gguf")


def test_positions_of_no_square_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "m")
    tower = dict(published(OF.tiny.weights)[0])
    tower["pos_embed"] = tower["pos_embed"][..., :-1, :]
    save(folder / "eva_vit_g.pth", tower, inner=False)
    with pytest.raises(ModelCorrupt, match="is no table of a square's positions"):
        convert(folder, tmp_path / "a.gguf")
