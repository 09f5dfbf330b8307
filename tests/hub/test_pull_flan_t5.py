"""Pulls of BLIP-2 and InstructBLIP with Flan-T5 from a hub on the loopback interface."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.convert_hub import Repo, Serving
from models.description import described

from kosmos_edge import _core, hub, load
from kosmos_edge.hub import transfer

TAGS = {"blip2-flan-t5-xl": "blip2_t5", "instructblip-flan-t5-xl": "instructblip_t5"}
NAMES = {"blip2-flan-t5-xl": "BLIP-2 Flan-T5 XL", "instructblip-flan-t5-xl": "InstructBLIP Flan-T5 XL"}
WANTED = ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]
QUESTION = [f"qformer_tokenizer/{name}" for name in ("added_tokens.json", "tokenizer_config.json", "vocab.txt")]


@pytest.fixture(params=TAGS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("KOSMOS_EDGE_MODEL", "KOSMOS_EDGE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    checkpoint = described()[TAGS[request.param]].write_checkpoint(tmp_path / "checkpoint")
    inside = [path for path in checkpoint.rglob("*") if path.is_file()]
    files = {path.relative_to(checkpoint).as_posix(): path.read_bytes() for path in inside}
    files |= {"README.md": b"# a model card", "spiece.model": b"not asked for"}
    with Serving({f"Salesforce/{request.param}": Repo(files, {"model.safetensors"})}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield SimpleNamespace(server=server, models=tmp_path / "own" / "models", tag=request.param)


def test_pull(place) -> None:
    path = hub.pull(f"{place.tag}:q8_0")
    reads = place.tag.startswith("instructblip")
    fetched = {name.rpartition("/")[2] for name in place.server.fetched()}
    assert fetched == {name.rpartition("/")[2] for name in [*WANTED, *(QUESTION if reads else [])]}
    assert path.parent == place.models and path.name.startswith(NAMES[place.tag].replace(" ", "-") + "-")
    metadata = _core.GgufFile(str(path)).metadata()
    assert metadata["general.architecture"] == TAGS[place.tag] and metadata["general.name"] == NAMES[place.tag]
    assert metadata["general.source.url"] == f"https://huggingface.co/Salesforce/{place.tag}"
    assert [model.tag for model in hub.list_models() if model.tag not in hub.PACKAGED] == [f"{place.tag}:q8_0"]
    assert hub.resolve(place.tag) == path
    with load(path, threads=1) as model:
        assert model.model_info["tasks"] == ["caption", "ask", "generate", "score"]


def test_what_is_known_of_them() -> None:
    for tag, size in (("blip2-flan-t5-xl", 2.8e9), ("instructblip-flan-t5-xl", 2.9e9)):
        row = hub.PUBLISHED[tag]
        assert row.license == "mit" and hub.converted_bytes(row, "q4_k_m") == pytest.approx(size, rel=0.02)
