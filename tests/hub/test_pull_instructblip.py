"""Pulls of InstructBLIP from a hub on the loopback interface: a repository with a second vocabulary in a folder."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.convert_hub import COMMIT, Repo, Serving
from models.description import described

from kosmos_edge import _core, hub, load
from kosmos_edge.errors import ModelCorrupt, ModelNotFound
from kosmos_edge.hub import transfer

REPO, TAG = "Salesforce/instructblip-vicuna-7b", "instructblip-vicuna-7b"
QUESTION = ["added_tokens.json", "tokenizer_config.json", "vocab.txt"]
UNUSED = 2 * 3072 * 768 + 3072 + 3 * 768  # weights: what the Q-Former's last block makes of the text


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return described()["instructblip"].write_checkpoint(tmp_path_factory.mktemp("instructblip") / "hf")


@pytest.fixture
def place(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("KOSMOS_EDGE_MODEL", "KOSMOS_EDGE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    inside = [path for path in checkpoint.rglob("*") if path.is_file()]
    files = {path.relative_to(checkpoint).as_posix(): path.read_bytes() for path in inside}
    files |= {"README.md": b"# a model card", "figures/a/b.json": b"{}", ".cache/x.json": b"{}"}
    with Serving({REPO: Repo(files, {"model.safetensors"})}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield SimpleNamespace(server=server, models=tmp_path / "own" / "models", hf=tmp_path / "hf" / "hub")


def test_pull(place) -> None:
    path = hub.pull(f"{TAG}:q8_0")
    wanted = ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(place.server.fetched()) == sorted(wanted + QUESTION)
    assert path.parent == place.models and path.name.startswith("InstructBLIP-Vicuna-7B-")
    metadata = _core.GgufFile(str(path)).metadata()
    assert metadata["general.name"] == "InstructBLIP Vicuna 7B"
    assert metadata["general.source.url"] == f"https://huggingface.co/{REPO}"
    assert "qformer_tokenizer/vocab.txt" in {text.partition(":")[0] for text in metadata["instructblip.source.sha256"]}
    assert [model.tag for model in hub.list_models() if model.tag not in hub.PACKAGED] == [f"{TAG}:q8_0"]
    assert hub.resolve(TAG) == path and hub.default_model()[0] == "nano"
    with load(path, threads=1) as model:
        assert model.model_info["tasks"] == ["caption", "ask", "generate", "score"]


def test_offline_from_what_was_kept(place) -> None:
    """The second vocabulary is found in the library's cache, too, where every file is a link to its content."""
    hub.pull(f"{TAG}:q8_0", keep_source=True)
    inner = place.hf / f"models--{REPO.replace('/', '--')}" / "snapshots" / COMMIT / "qformer_tokenizer"
    assert sorted(path.name for path in inner.iterdir()) == QUESTION
    asked = len(place.server.requests)
    assert hub.pull(f"{TAG}:f16", offline=True).name.endswith("-F16.gguf") and len(place.server.requests) == asked


def test_a_link_that_leaves_the_cache_is_refused(place, tmp_path: Path) -> None:
    hub.pull(f"{TAG}:q8_0", keep_source=True)
    inner = place.hf / f"models--{REPO.replace('/', '--')}" / "snapshots" / COMMIT / "qformer_tokenizer"
    elsewhere = tmp_path / "vocab.txt"
    elsewhere.write_bytes((inner / "vocab.txt").read_bytes())
    (inner / "vocab.txt").unlink()
    (inner / "vocab.txt").symlink_to(elsewhere)
    with pytest.raises(ModelCorrupt, match=r"vocab\.txt"):
        hub.pull(f"{TAG}:f16", offline=True)


def test_a_repository_without_the_questions_vocabulary(place) -> None:
    for name in QUESTION:
        del place.server.repos[REPO].files[f"qformer_tokenizer/{name}"]
    with pytest.raises(ModelNotFound, match="qformer_tokenizer"):
        hub.pull(f"{TAG}:q8_0")


def test_what_is_known_of_it() -> None:
    row = hub.PUBLISHED[TAG]
    assert row.repo == REPO and row.license == "other" and "commercial" in row.about
    assert row.source_bytes == 4 * 7_913_210_624 == hub.converted_bytes(row, "f32") + 4 * UNUSED
    assert 4.8e9 < hub.converted_bytes(row, "q4_k_m") < 5.3e9
