"""Pulls of LLaVA from a hub on the loopback interface: 1.5 and TinyLLaVA, which are one model of two sizes."""

from pathlib import Path

import pytest
from helpers.convert_hub import Repo, Serving
from models.description import described

from kosmos_edge import _core, hub, load
from kosmos_edge.hub import transfer

ROWS = {  # tag -> its repository, how its files' names begin, its name
    "llava-1.5-7b": ("llava-hf/llava-1.5-7b-hf", "LLaVA-Vicuna-7B-", "LLaVA 1.5 7B"),
    "llava-1.5-13b": ("llava-hf/llava-1.5-13b-hf", "LLaVA-Vicuna-13B-", "LLaVA 1.5 13B"),
    "tinyllava": ("bczhou/tiny-llava-v1-hf", "TinyLLaVA-", "TinyLLaVA"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("KOSMOS_EDGE_MODEL", "KOSMOS_EDGE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    folder = described()["llava"].write_checkpoint(tmp_path / "published")
    (folder / "special_tokens_map.json").write_text("{}")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    more = {"README.md": b"# a model card", "tokenizer.model": b"the same in another form", "merges.txt": b""}
    repos = {repo: Repo(files | more, {"model.safetensors", "tokenizer.model"}) for repo, *_ in ROWS.values()}
    with Serving(repos) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server, set(files)


def test_pull_of_every_size(place) -> None:
    server, files = place
    made = {}
    for tag, (repo, beginning, name) in ROWS.items():
        before = len(server.fetched())
        made[tag] = hub.pull(f"{tag}:q8_0")
        assert set(server.fetched()[before:]) == files
        assert made[tag].name.startswith(beginning) and made[tag].name.endswith("-Q8_0.gguf")
        metadata = _core.GgufFile(str(made[tag])).metadata()
        assert metadata["general.architecture"] == "llava" and metadata["general.name"] == name
        assert metadata["general.source.url"] == f"https://huggingface.co/{repo}"
        assert metadata["general.license"] == hub.PUBLISHED[tag].license
    assert len(set(made.values())) == len(ROWS)
    assert {model.tag for model in hub.list_models() if model.tag not in hub.PACKAGED} == {
        f"{tag}:q8_0" for tag in ROWS
    }
    assert {tag: hub.resolve(tag) for tag in ROWS} == made
    with load("tinyllava", threads=1) as model:
        assert model.model_info["tasks"] == ["caption", "ask", "generate", "score"]


def test_what_is_known_of_them() -> None:
    """Parameters as counted of the published settings; 16 bits each."""
    for tag, parameters in (("llava-1.5-7b", 7_063_427_072), ("tinyllava", 1_410_113_536)):
        assert hub.PUBLISHED[tag].source_bytes == 2 * parameters
    for tag, limit in (("llava-1.5-7b", 4.4e9), ("llava-1.5-13b", 8.2e9), ("tinyllava", 1.1e9)):
        row = hub.PUBLISHED[tag]
        assert 0.25 * row.source_bytes < hub.converted_bytes(row, "q4_k_m") < limit
