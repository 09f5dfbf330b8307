"""Pulls of LLaVA-Interleave-Qwen from a hub on the loopback interface."""

from pathlib import Path

import pytest
from helpers.convert_hub import Repo, Serving
from models.description import described

from kosmos_edge import _core, hub, load
from kosmos_edge.hub import transfer

TAG, REPO = "llava-interleave-qwen-0.5b", "llava-hf/llava-interleave-qwen-0.5b-hf"


def test_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model_type is LLaVA's; what its language model is tells the two apart."""
    for name in ("KOSMOS_EDGE_MODEL", "KOSMOS_EDGE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    folder = described()["llava_qwen2"].write_checkpoint(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": b"# a model card"}
    with Serving({REPO: Repo(files, {"model.safetensors"})}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        path = hub.pull(f"{TAG}:q8_0")
        assert sorted(server.fetched()) == sorted(folder_file.name for folder_file in folder.iterdir())
    assert path.name.startswith("LLaVA-Interleave-Qwen-") and path.name.endswith("-Q8_0.gguf")
    metadata = _core.GgufFile(str(path)).metadata()
    assert metadata["general.architecture"] == "llava_qwen2"
    assert metadata["general.source.url"] == f"https://huggingface.co/{REPO}"
    assert [model.tag for model in hub.list_models() if model.tag not in hub.PACKAGED] == [f"{TAG}:q8_0"]
    assert hub.resolve(TAG) == path
    with load(path, threads=1) as model:
        assert model.model_info["tasks"] == ["caption", "ask", "generate", "score"]
