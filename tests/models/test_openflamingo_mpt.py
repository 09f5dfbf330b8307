"""OpenFlamingo with MPT: what the suite over all models does not ask. Slopes, norms of queries and keys, what the file
must say of them, a CUDA device."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.cuda_emulated import use_cuda
from helpers.golden_cases import relative_error
from helpers.tiny import make_picture, write_tiny

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt
from models.description import described
from models.openflamingo_mpt import A, OpenFlamingoMptReference

OF = described()[A]
PICTURE = make_picture(1, 80, 60)


def write(path: Path, without: tuple[str, ...] = (), **changes: tuple) -> tuple[Path, OpenFlamingoMptReference]:
    """The tiny model with other metadata (keys behind "openflamingo_mpt.", dots as __) and without its parts of these
    names, and its definition."""
    metadata = dict(OF.tiny.metadata)
    for key, entry in changes.items():
        metadata[f"{A}." + key.replace("__", ".")] = entry
    own = re.compile(r"blk\.\d+\.(\w+)\.weight")
    weights = {n: w for n, w in OF.tiny.weights.items() if not ((m := own.fullmatch(n)) and m[1] in without)}
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    return path, OpenFlamingoMptReference(metadata, weights)


def logits_of(path: Path, device: str = "cpu") -> tuple[np.ndarray, list[int]]:
    """Of a text around a picture, and the ids in front of it."""
    engine = _core.Engine(str(path), threads=1, device=device)
    words = engine.tokenizer.encode("the house and a cat in the snow with a dog")
    image = engine.encode_image(PICTURE.tobytes(), *PICTURE.shape[1::-1])
    data, rows, vocab = engine.logits([("ids", words), ("image", image), ("ids", words)])
    return np.frombuffer(data, np.float32).reshape(rows, vocab), words


def far(path: Path, definition: OpenFlamingoMptReference) -> float:
    found, words = logits_of(path)
    return relative_error(found, definition.logits(definition.prompt([words, definition.encode_image(PICTURE), words])))


@pytest.mark.parametrize("most", [1.0, 8.0, 16.0])
def test_the_file_says_how_steep_the_slopes_are(most: float, tmp_path: Path) -> None:
    path, definition = write(tmp_path / "x.gguf", attention__max_alibi_bias=("f32", most))
    assert far(path, definition) < 1e-4
    metadata = {**OF.tiny.metadata, f"{A}.attention.max_alibi_bias": ("f32", 4.0)}
    assert far(path, OpenFlamingoMptReference(metadata, OF.tiny.weights)) > 1e-3


def test_without_norms_of_queries_and_keys(tmp_path: Path) -> None:
    """As MPT-7B."""
    path, definition = write(tmp_path / "x.gguf", ("attn_q_norm", "attn_k_norm"), attention__qk_norm=("bool", False))
    assert far(path, definition) < 1e-4
    assert far(write(tmp_path / "y.gguf")[0], definition) > 1e-3


@pytest.mark.parametrize("without, flag", [(("attn_q_norm",), True), ((), False)])
def test_norms_that_the_file_does_not_speak_of(without: tuple[str, ...], flag: bool, tmp_path: Path) -> None:
    path, _ = write(tmp_path / "x.gguf", without, attention__qk_norm=("bool", flag))
    with pytest.raises(ModelCorrupt, match=r"attention.qk_norm is .*attn_q_norm.weight is .*expected both or neither"):
        kosmos_edge.load(path)


def test_on_a_cuda_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    path, _ = write(tmp_path / "x.gguf")
    assert relative_error(logits_of(path, "cuda")[0], logits_of(path)[0]) < 1e-4
