"""Pulls of CLIP from a hub on the loopback interface, and which model compares by default."""

from pathlib import Path

import pytest
from helpers.convert_hub import Repo, Serving
from models.description import every

from kosmos_edge import hub, load
from kosmos_edge.errors import ModelNotFound
from kosmos_edge.hub import transfer

TAG, REPO = "clip-vit-base-patch32", "openai/clip-vit-base-patch32"


def test_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KOSMOS_EDGE_MODEL", "KOSMOS_EDGE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    with pytest.raises(ModelNotFound, match="no model that compares images and texts is here"):
        hub.default_comparer()
    folder = every()["clip_towers"].write_checkpoint(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": b"# a model card"}
    with Serving({REPO: Repo(files, {"model.safetensors"})}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        path = hub.pull(f"{TAG}:q8_0")
        assert sorted(server.fetched()) == sorted(file.name for file in folder.iterdir())
    assert path.name.startswith("CLIP-ViT-B-32-") and path.name.endswith("-Q8_0.gguf")
    assert hub.default_comparer() == (f"{TAG}:q8_0", f"a converted {TAG} is in the cache")
    assert hub.default_model()[0] == "nano"  # it writes nothing
    with load(path, threads=1) as model:
        assert model.model_info["tasks"] == ["similarity"] and model.name == "CLIP ViT-B/32"
