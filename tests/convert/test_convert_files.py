"""The converter and what lies around a checkpoint: hostile names, links and special files."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from helpers.convert_checkpoint import (
    convert_state,
    convert_write_hf,
)

from kosmos_edge.convert import convert
from kosmos_edge.convert.sources.files import Folder
from kosmos_edge.errors import KosmosIOError, ModelCorrupt, ModelNotFound


@pytest.fixture(scope="module")
def state():
    return convert_state(seed=4, layers=1, vision_layers=1)


ONE_LAYER = {"text_config__layers": 1, "vision_config__num_hidden_layers": 1}


@pytest.fixture(scope="module")
def hf(state, tmp_path_factory):
    return convert_write_hf(tmp_path_factory.mktemp("hf"), state, **ONE_LAYER)


# ---- names


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../secret",
        "/etc/passwd",
        "sub/x",
        "sub\\x",
        "x\0y",
        "C:x",
        "~",
        "a b",
        "ж",
        "x" * 256,
        "x\n",
        "$(id)",
    ],
)
def test_index_names_that_leave_the_folder(tmp_path, hf, name):
    (tmp_path / "secret").write_bytes((hf / "model.safetensors").read_bytes())
    folder = tmp_path / "model"
    folder.mkdir()
    for file in hf.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelCorrupt, match="plain file name"):
        convert(folder, tmp_path / "a.gguf")


def test_links_and_special_files(tmp_path, hf, state):
    data = (hf / "model.safetensors").read_bytes()
    (tmp_path / "outside").write_bytes(data)

    def folder(name: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        for file in hf.iterdir():
            if file.suffix == ".json":
                (path / file.name).write_bytes(file.read_bytes())
        return path

    bad = folder("link out")
    (bad / "model.safetensors").symlink_to(tmp_path / "outside")
    with pytest.raises(ModelCorrupt, match="leaves its folder"):
        convert(bad, tmp_path / "a.gguf")
    assert convert(bad / "model.safetensors", tmp_path / "named.gguf")  # the user may name the link itself

    bad = folder("device")
    (bad / "model.safetensors").symlink_to("/dev/zero")
    with pytest.raises(ModelCorrupt, match="leaves its folder"):
        convert(bad, tmp_path / "a.gguf")

    bad = folder("loop")
    (bad / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(ModelNotFound):
        convert(bad, tmp_path / "a.gguf")

    bad = folder("pipe")
    os.mkfifo(bad / "model.safetensors")
    with pytest.raises(ModelNotFound, match="regular file"):
        convert(bad, tmp_path / "a.gguf")

    bad = folder("folder")
    (bad / "model.safetensors").mkdir()
    with pytest.raises((ModelNotFound, KosmosIOError)):
        convert(bad, tmp_path / "a.gguf")

    good = folder("link in")
    (good / "weights").write_bytes(data)
    (good / "model.safetensors").symlink_to("weights")
    expected = convert(good, tmp_path / "a.gguf").output.read_bytes()

    hub = tmp_path / "models--a--b"  # the hub's cache: links from snapshots to blobs
    (hub / "blobs").mkdir(parents=True)
    snapshot = hub / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for file in hf.iterdir():
        digest = hashlib.sha256(file.name.encode()).hexdigest()
        (hub / "blobs" / digest).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{digest}")
    assert convert(snapshot, tmp_path / "b.gguf").output.read_bytes() == expected
    assert convert(snapshot / "model.safetensors", tmp_path / "c.gguf").output.read_bytes() == expected


def test_a_folder_inside_a_checkpoint(tmp_path):
    (tmp_path / "model" / "part").mkdir(parents=True)
    (tmp_path / "model" / "part" / "a.json").write_text("{}")
    (tmp_path / "outside").mkdir()
    (tmp_path / "model" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "model" / "near").symlink_to(tmp_path / "model" / "part")
    folder = Folder(tmp_path / "model")
    with folder.inner("part").open("a.json") as file:
        assert file.name == "part/a.json" and file.read_all(2) == b"{}"
    assert folder.inner("near").has("a.json")
    assert folder.inner("none") is None
    with pytest.raises(ModelCorrupt, match=r"link is a link that leaves its folder \(to .*outside\)"):
        folder.inner("link")
