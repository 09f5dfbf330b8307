"""Tags, paths and places of models: what a name means, and what is said when there is nothing under it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kosmos_edge import hub
from kosmos_edge.errors import InvalidRequest, ModelNotFound


@pytest.fixture
def gguf() -> bytes:
    """Nothing here opens a model."""
    return b"GGUF and so on"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Caches in a temporary folder."""
    for name in ("KOSMOS_EDGE_MODEL", "KOSMOS_EDGE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return SimpleNamespace(models=tmp_path / "own" / "models")


def test_resolve_says_what_to_do(place, tmp_path):
    for spec, error, match in [
        ("kosmos-2", ModelNotFound, "`kosmos-edge models pull kosmos-2`"),
        ("kosmos-2:q8_0", ModelNotFound, "`kosmos-edge models pull kosmos-2:q8_0`"),
        ("kosmos-2:q3_k", InvalidRequest, "q3_k"),
        ("nano:q8_0", InvalidRequest, "one type"),
        ("cosmos", ModelNotFound, "expected nano"),
        ("user/repo", ModelNotFound, "models pull user/repo"),
        (str(tmp_path / "x.gguf"), ModelNotFound, "no such file"),
        ("./x", ModelNotFound, "no such file"),
        (str(tmp_path), ModelNotFound, "is a folder"),
        ("user/../repo", ModelNotFound, "expected nano"),
        ("", ModelNotFound, "expected nano"),
    ]:
        with pytest.raises(error, match=match):
            hub.resolve(spec)


def test_resolve_of_paths(place, tmp_path, gguf, monkeypatch):
    path = tmp_path / "画像 🙂.gguf"
    path.write_bytes(gguf)
    assert hub.resolve(str(path)) == path
    monkeypatch.chdir(tmp_path)
    assert hub.resolve(path.name) == Path(path.name)
    (tmp_path / "nano").write_bytes(b"not the model")  # a tag is a tag; a file of that name is ./nano
    assert hub.resolve("./nano") == Path("nano")
    if hub.nano_path().exists():
        assert hub.resolve("nano") == hub.nano_path()


def test_default_model_rule(place, monkeypatch, gguf):
    assert hub.default_model()[0] == "nano"
    place.models.mkdir(parents=True)
    for name in (
        "Kosmos-2-1.6B-v1.0-F16.gguf",
        "Kosmos-2-1.6B-v1.0-Q8_0.gguf",
        "Kosmos-2-nano-3M-v0.1-Q4_K_M.gguf",
        "x-Q4_K_M.gguf",
    ):
        (place.models / name).write_bytes(gguf)
    assert hub.default_model()[0] == "kosmos-2:q8_0"
    (place.models / "Kosmos-2-1.6B-v1.0-Q4_K_M.gguf").write_bytes(gguf)
    assert hub.default_model()[0] == "kosmos-2:q4_k_m"
    monkeypatch.setenv("KOSMOS_EDGE_MODEL", "/some/file.gguf")
    assert hub.default_model() == ("/some/file.gguf", "KOSMOS_EDGE_MODEL says so")


def test_remove(place, gguf, tmp_path):
    place.models.mkdir(parents=True)
    for label in ("Q4_K_M", "Q5_K_M"):
        (place.models / f"Kosmos-2-1.6B-v1.0-{label}.gguf").write_bytes(gguf)
    with pytest.raises(InvalidRequest, match="kosmos-2:q4_k_m, kosmos-2:q5_k"):
        hub.remove("kosmos-2")
    assert hub.remove("kosmos-2:q5_k_m").name.endswith("Q5_K_M.gguf")
    assert hub.remove("kosmos-2").name.endswith("Q4_K_M.gguf")
    with pytest.raises(ModelNotFound):
        hub.remove("kosmos-2")
    with pytest.raises(InvalidRequest, match="part of the package"):
        hub.remove("nano")
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(gguf)
    with pytest.raises(InvalidRequest, match="not a tag"):
        hub.remove(str(mine))
    assert mine.exists()


def test_places_follow_the_environment(monkeypatch, tmp_path):
    for name in ("KOSMOS_EDGE_CACHE", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub.cache_dir() == tmp_path / "kosmos-edge"
    assert hub.hf_cache_dir() == tmp_path / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "h"))
    assert hub.hf_cache_dir() == tmp_path / "h" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", "~/c")
    assert hub.hf_cache_dir() == Path.home() / "c"
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "k"))
    assert hub.cache_dir() == tmp_path / "k"


def test_a_damaged_note_of_pulled_files_is_no_obstacle(place):
    hub.cache_dir().mkdir(parents=True)
    for text in ("{", "[]", '{"a": 1, "b": "/nowhere"}'):
        (hub.cache_dir() / "pulled.json").write_text(text)
        assert [m.tag for m in hub.list_models() if m.tag not in hub.PACKAGED] == []
