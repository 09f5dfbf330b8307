"""Whole checkpoints with a payload: whatever family, wherever it stands in the file, nothing is imported, run or opened
outside of the file. tests/convert/test_unpickle.py tries the pickle machine alone."""

import json
import os
import socket
import struct
import sys
from pathlib import Path

import pytest
from corpus_files import torch_zip
from helpers.convert_checkpoint import (
    Raw,
    convert_safetensors_bytes,
    op_build,
    op_call,
    op_global,
    op_ordered,
    op_pickle,
    op_tensor,
    op_value,
)
from test_unpickle import DANGEROUS, FOREIGN

from kosmos_edge.convert.sources.files import Folder, SourceFile
from kosmos_edge.convert.sources.torch_file import TorchFile
from kosmos_edge.convert.sources.unpickle import Foreign
from kosmos_edge.convert.sources.weights import read_sharded, read_state, read_torch, sniff
from kosmos_edge.errors import KosmosError, ModelCorrupt

EVENTS: list[tuple[str, tuple]] | None = None
LOUD = (
    "import",
    "exec",
    "compile",
    "open",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "pickle.",
    "shutil.",
    "marshal.",
)


def _hook(event: str, arguments: tuple) -> None:
    if EVENTS is not None and event.startswith(LOUD):
        EVENTS.append((event, arguments))


sys.addaudithook(_hook)  # cannot be removed again: silent unless EVENTS is a list


def watched(read, path: Path):
    """read(open file), with proof that only this file was opened and nothing imported or run meanwhile."""
    global EVENTS
    EVENTS = []
    try:
        with SourceFile(path) as file:
            return read(file)
    finally:
        seen, EVENTS = EVENTS, None
        strange = [e for e in seen if e[0] != "open" or not isinstance(e[1][0], int | Path | str)]
        assert not strange, strange
        paths = {os.fspath(e[1][0]) for e in seen if not isinstance(e[1][0], int)}
        assert paths <= {str(path)}, paths


def fairseq(file: SourceFile) -> TorchFile:
    return read_torch(file, sniff(file))


def legacy(pickled: bytes, keys: list[str]) -> bytes:
    """The stream that torch wrote before its zip container."""
    head = op_pickle(0x1950A86A20F9469CFC6C) + op_pickle(1001)
    head += op_pickle({"protocol_version": 1001, "little_endian": True}) + pickled + op_pickle(keys)
    return head + b"".join(struct.pack("<Q", 4) + bytes(16) for _ in keys)


TENSOR = op_tensor("0", "F32", (2, 2))
ARGPARSE = {Foreign("argparse", "Namespace")}


def placed(payload: Raw) -> dict[str, bytes]:
    """The payload where a loader might meet it."""
    weights = op_ordered({"a": TENSOR})
    args = op_build(op_call(op_global("argparse", "Namespace"), opcode=b"\x81"), {"lr": payload})
    rebuilt = op_call(op_global("torch._utils", "_rebuild_parameter"), TENSOR, True, payload)
    return {
        "beside": op_pickle({"model": weights, "x": payload}),
        "in settings": op_pickle({"args": args, "model": weights}),
        "as a weight": op_pickle({"model": op_ordered({"a": TENSOR, "b": payload})}),
        "as hooks": op_pickle({"model": op_ordered({"a": rebuilt})}),
        "as state": op_pickle({"model": op_build(op_ordered({"a": TENSOR}), {"__setstate__": payload})}),
        "dropped": b"\x80\x02" + payload + b"q\x05" + op_value({"model": weights}) + b"\x86.",
    }


@pytest.mark.parametrize("name", [*DANGEROUS, *FOREIGN])
def test_payloads_in_whole_files(name, tmp_path):
    module, _, attribute = name.rpartition(" ")
    canary = tmp_path / "canary"
    payload = op_call(op_global(module, attribute), f"touch {canary}")
    for where, pickled in placed(payload).items():
        for data in (torch_zip(pickled), legacy(pickled, ["0"])):
            path = tmp_path / "kosmos-2.pt"
            path.write_bytes(data)
            try:
                torch_file = watched(fairseq, path)
            except ModelCorrupt as error:
                assert name in DANGEROUS or "to be trusted" not in str(error), f"{where}: {error}"
            else:
                assert name in FOREIGN, f"{where}: {name} was accepted"
                assert all(f.module == module and f.name == attribute for f in torch_file.foreign - ARGPARSE)
            with pytest.raises(KosmosError):  # as a plain dict of weights nothing foreign is accepted at all
                watched(read_state, path)
            assert not canary.exists()


def test_there_are_eighty_families():
    assert len({*DANGEROUS, *FOREIGN}) >= 80


# ---- an index: nothing outside of its folder is opened

UPWARDS = (
    "../", "..\\", "/", "./../", "a/../../", "....//", "%2e%2e/", "..%2f", "..;/", "\\\\host\\share\\", "C:/", "file://",
)  # fmt: skip
TARGETS = ("outside.safetensors", "etc/passwd", "outside.safetensors\0.safetensors", " outside.safetensors")
CLIMBING = [up + target for up in UPWARDS for target in TARGETS]
ODD = [
    "", ".", "..", "...", "~", "~root", "a\0", "\0", "a\n", " a", "a ", "a/", "/", "//", "a//b", "-", "*", "?", "[a]",
    "$HOME", "`id`", "a;b", "a|b", "é", "\u202ea", "\ufeffa", "\u2025/x", "\uff0e\uff0e/x", "CON/", "nul:", "x" * 256,
    "x" * 5000, "http://h/x", "data:,x", "/dev/stdin", "/dev/zero", "/proc/self/mem", "/proc/self/fd/0",
]  # fmt: skip


def refused_without_opening(folder: Path, name: str) -> None:
    global EVENTS
    (folder / "i.json").write_text(json.dumps({"weight_map": {"a": name}}))
    files: list[SourceFile] = []
    EVENTS = []
    try:
        opened = Folder(folder)
        files.append(opened.open("i.json"))
        with pytest.raises(KosmosError):
            read_sharded(opened, files[0], files)
    finally:
        seen, EVENTS = EVENTS, None
        for file in files:
            file.close()
        paths = [os.fsdecode(e[1][0]) for e in seen if e[0] == "open" and not isinstance(e[1][0], int)]
        assert all(Path(p).parent == folder.resolve() for p in paths), paths


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (tmp_path / "outside.safetensors").write_bytes(convert_safetensors_bytes({"a": ((2,), bytes(8))}))
    return path


def test_names_that_leave_the_folder(folder):
    for name in [*CLIMBING, *ODD]:
        refused_without_opening(folder, name)


def test_links_pipes_sockets_and_devices(folder, tmp_path):
    outside = tmp_path / "outside.safetensors"
    (folder / "link").symlink_to(outside)
    (folder / "relative").symlink_to("../outside.safetensors")
    (folder / "chain").symlink_to("relative")
    (folder / "up").symlink_to("..", target_is_directory=True)
    (folder / "self").symlink_to("self")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "stdin").symlink_to("/proc/self/fd/0")
    os.mkfifo(folder / "pipe")
    (folder / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)
        try:
            server.bind("socket")  # a path relative to the folder: absolute ones may be too long for a socket
        finally:
            os.chdir(here)
        for name in ("link", "relative", "chain", "up", "self", "zero", "stdin", "pipe", "directory", "socket", "gone"):
            refused_without_opening(folder, name)


def test_a_hard_link_is_the_folders_own_file(folder, tmp_path):
    """A second name of a file cannot be told from a first one: what lies in the folder may be read, as weights only."""
    os.link(tmp_path / "outside.safetensors", folder / "hard.safetensors")
    (folder / "i.json").write_text(json.dumps({"weight_map": {"a": "hard.safetensors"}}))
    files: list[SourceFile] = []
    opened = Folder(folder)
    files.append(opened.open("i.json"))
    assert list(read_sharded(opened, files[0], files)) == ["a"]
    for file in files:
        file.close()
    (tmp_path / "secret").write_text("not weights")
    os.link(tmp_path / "secret", folder / "secret")
    refused_without_opening(folder, "secret")
