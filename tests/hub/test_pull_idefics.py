"""Pulls of IDEFICS from a hub on the loopback interface."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.convert_hub import Repo, Serving
from models.description import described

from kosmos_edge import _core, hub, load
from kosmos_edge.hub import transfer

REPO = "HuggingFaceM4/idefics-9b-instruct"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return described()["idefics"].write_checkpoint(tmp_path_factory.mktemp("idefics") / "hf")


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
    path = hub.pull("idefics-9b-instruct:q8_0")
    wanted = ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(place.server.fetched()) == wanted
    assert (
        path.parent == place.models and path.name.startswith("IDEFICS-Instruct-") and path.name.endswith("-Q8_0.gguf")
    )
    metadata = _core.GgufFile(str(path)).metadata()
    assert metadata["general.name"] == "IDEFICS 9B-Instruct"
    assert metadata["general.source.url"] == f"https://huggingface.co/{REPO}"
    assert [model.tag for model in hub.list_models() if model.tag not in hub.PACKAGED] == ["idefics-9b-instruct:q8_0"]
    assert hub.resolve("idefics-9b-instruct") == path and hub.default_model()[0] == "nano"
    with load(path, threads=1) as model:
        assert model.model_info["tasks"] == ["caption", "ask", "generate", "score"]


def test_what_is_known_of_it() -> None:
    """The instructed one has a token more, with a row in the embedding and in the head."""
    base, instructed = hub.PUBLISHED["idefics-9b"], hub.PUBLISHED["idefics-9b-instruct"]
    assert base.source_bytes == 2 * 8_929_679_632 and instructed.source_bytes - base.source_bytes == 2 * 2 * 4096
    for row in (base, instructed):
        assert row.repo == f"HuggingFaceM4/{row.name}" and row.license == "other" and "research" in row.about
        assert 5.0e9 < hub.converted_bytes(row, "q4_k_m") < 6.5e9
