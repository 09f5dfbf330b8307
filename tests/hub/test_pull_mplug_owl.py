"""Pulls of mPLUG-Owl from a hub on the loopback interface."""

from pathlib import Path

import pytest
from helpers.convert_hub import Repo, Serving
from models.description import described

from kosmos_edge import _core, hub, load
from kosmos_edge.hub import transfer

TAG, REPO = "mplug-owl-llama-7b", "MAGAer13/mplug-owl-llama-7b"


def test_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KOSMOS_EDGE_MODEL", "KOSMOS_EDGE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    folder = described()["mplug_owl"].write_checkpoint(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": b"# a model card"}
    with Serving({REPO: Repo(files, {"model.safetensors"})}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert hub.plan(TAG).output_bytes == hub.converted_bytes(hub.PUBLISHED[TAG], "q4_k_m") < 4.5e9
        path = hub.pull(f"{TAG}:q8_0")
        assert sorted(server.fetched()) == sorted(file.name for file in folder.iterdir())
    assert path.name.startswith("mPLUG-Owl-LLaMA-7B-") and path.name.endswith("-Q8_0.gguf")
    metadata = _core.GgufFile(str(path)).metadata()
    assert metadata["general.architecture"] == "mplug_owl"
    assert metadata["general.source.url"] == f"https://huggingface.co/{REPO}"
    assert [model.tag for model in hub.list_models() if model.tag not in hub.PACKAGED] == [f"{TAG}:q8_0"]
    with load(hub.resolve(TAG), threads=1) as model:
        assert model.model_info["tasks"] == ["caption", "ask", "generate", "score"]


def test_what_is_known_of_it() -> None:
    row = hub.PUBLISHED[TAG]
    assert row.source_bytes == 2 * 7_146_692_608 and hub.converted_bytes(row, "f32") == 2 * row.source_bytes
    assert "commercial" in row.about
