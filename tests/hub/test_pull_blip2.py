"""Pulls of BLIP-2 from a hub on the loopback interface."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.convert_hub import Repo, Serving
from models.description import described

from kosmos_edge import _core, hub, load
from kosmos_edge.hub import transfer

REPO = "Salesforce/blip2-opt-2.7b"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = described()["blip2"].write_checkpoint(tmp_path_factory.mktemp("blip2") / "hf")
    return with_tokenizer_json(folder)


def with_tokenizer_json(folder: Path) -> Path:
    """As published: the vocabulary in one file, too."""
    tokenizers = pytest.importorskip("tokenizers", reason="writes tokenizer.json")
    bpe = tokenizers.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    made = tokenizers.Tokenizer(bpe)
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<image>"])
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def place(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("KOSMOS_EDGE_MODEL", "KOSMOS_EDGE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()} | {"README.md": b"# a model card"}
    with Serving({REPO: Repo(files, {"model.safetensors"})}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield SimpleNamespace(server=server, models=tmp_path / "own" / "models")


def test_pull(place) -> None:
    """Named by the size of its language model, so that two sizes are two models."""
    assert hub.plan("blip2-opt-2.7b").output_bytes == 2_765_876_736  # of the published sizes, at q4_k_m
    path = hub.pull("blip2-opt-2.7b:q8_0")
    wanted = ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(place.server.fetched()) == wanted
    assert path.parent == place.models and path.name.startswith("BLIP-2-OPT-2.7B-") and path.name.endswith("-Q8_0.gguf")
    metadata = _core.GgufFile(str(path)).metadata()
    assert metadata["general.name"] == "BLIP-2 OPT 2.7B"
    assert metadata["general.source.url"] == f"https://huggingface.co/{REPO}"
    assert [model.tag for model in hub.list_models() if model.tag not in hub.PACKAGED] == ["blip2-opt-2.7b:q8_0"]
    assert hub.resolve("blip2-opt-2.7b") == path and hub.default_model()[0] == "nano"
    with load(path, threads=1) as model:
        assert model.model_info["tasks"] == ["caption", "ask", "generate", "score"]


def test_what_is_known_of_it() -> None:
    for size, parameters in (("2.7b", 3_744_761_856), ("6.7b", 7_752_869_376)):
        row = hub.PUBLISHED[f"blip2-opt-{size}"]
        assert row.repo == f"Salesforce/blip2-opt-{size}" and row.source_bytes == 4 * parameters
        assert hub.converted_bytes(row, "f32") == row.source_bytes and "commercial" in row.about
