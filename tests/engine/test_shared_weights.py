"""load(shared_weights=...): two processes have the weights in memory once, with the same answers. The files themselves,
killed makers, damage and full disks: tests/native/shared_weights.cpp."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import capi
from helpers.api_model import png, tiny_file

import kosmos_edge
from kosmos_edge import InvalidRequest, _core

WORKER = """
import re, sys
import kosmos_edge
model = kosmos_edge.load("nano", threads=1, shared_weights=sys.argv[1] or False)
with open(sys.argv[2], "rb") as picture:
    model.caption(picture.read(), max_tokens=4)  # which reads all weights
print(model.shared_weights["shared_bytes"], flush=True)
sys.stdin.readline()
text = open("/proc/self/smaps").read()
own = shared = 0
for block in re.split(r"\\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
    if ".weights" in block.split("\\n", 1)[0]:
        sizes = dict((name, int(kb)) for name, kb in re.findall(r"(\\w+): +(\\d+) kB", block))
        own += sizes["Private_Clean"] + sizes["Private_Dirty"]
        shared += sizes["Shared_Clean"]
print(own, shared, flush=True)
sys.stdin.readline()
"""


def generation(model: kosmos_edge.Model) -> tuple[str, list[float]]:
    answer = model.caption(png(3, 64, 48), max_tokens=8, logprobs=True)
    return answer.text, list(answer.logprobs or [])


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_answers_are_the_same_and_the_file_is_made_once(tmp_path: Path, isolation: str) -> None:
    with kosmos_edge.load("nano", threads=1) as model:
        expected = generation(model)
        assert model.shared_weights["file"] == "" and model.shared_weights["note"] == ""
    for made in (True, False):
        with kosmos_edge.load("nano", threads=1, shared_weights=tmp_path / "w", isolation=isolation) as model:
            how = model.shared_weights
            assert how["made"] is made and how["note"] == "" and how["private_bytes"] == 0
            assert how["shared_bytes"] > 1_000_000 and Path(how["file"]).parent == tmp_path / "w"
            assert generation(model) == expected
    file = _core.shared_weights_file(how["file"])
    assert file["bytes"] == os.path.getsize(how["file"]) and Path(file["origin"]).name.startswith("nano")
    assert sum(entry["bytes"] for entry in file["entries"]) == how["shared_bytes"]
    assert _core.damaged_shared_weights(how["file"]) == 0


def test_damage_inside_a_matrix_is_found_by_its_digest(tmp_path: Path) -> None:
    with kosmos_edge.load(tiny_file(), shared_weights=tmp_path) as model:
        path = Path(model.shared_weights["file"])
    data = bytearray(path.read_bytes())
    data[_core.shared_weights_file(str(path))["entries"][0]["place"]] ^= 1
    path.write_bytes(data)
    assert _core.damaged_shared_weights(str(path)) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_two_processes_have_the_weights_once(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(png(3, 64, 48))
    command = [sys.executable, "-P", "-c", WORKER, str(tmp_path / "w"), str(tmp_path / "picture.png")]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        sizes = [int(worker.stdout.readline()) for worker in workers]  # type: ignore[union-attr]
        assert sizes[0] == sizes[1] > 1_000_000
        for worker in workers:  # pages that both have touched are shared
            worker.stdin.write("\n")  # type: ignore[union-attr]
            worker.stdin.flush()  # type: ignore[union-attr]
        memory = [[int(kb) for kb in worker.stdout.readline().split()] for worker in workers]  # type: ignore[union-attr]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    for own, shared in memory:
        assert own * 1024 < sizes[0] / 10 and shared * 1024 > sizes[0] * 0.9, memory


def test_a_folder_that_cannot_be_used_is_told_and_the_model_loads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.touch()
    with kosmos_edge.load(tiny_file(), shared_weights=file) as model:
        assert model.shared_weights["file"] == "" and "expected a folder" in model.shared_weights["note"]
    assert "expected a folder" in caplog.text
    for wrong in ("", 1, None, b"w"):
        with pytest.raises(InvalidRequest, match="shared_weights: expected True, False or a folder"):
            kosmos_edge.load(tiny_file(), shared_weights=wrong)  # type: ignore[arg-type]


def test_true_is_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "cache"))
    with kosmos_edge.load(tiny_file(), shared_weights=True) as model:
        folder = Path(model.shared_weights["file"]).parent
    assert folder == tmp_path / "cache" / "weights" and folder.stat().st_mode & 0o777 == 0o700


def test_c(tmp_path: Path) -> None:
    for _ in range(2):
        model = capi.load(tiny_file(), shared_weights=os.fsencode(tmp_path))
        info = capi.ModelInfo()
        capi.call("model_get", model, capi.byref(info))
        assert info.weight_bytes_shared > 0
        capi.lib().kosmos_model_free(model)
    assert len(list(tmp_path.glob("*.weights"))) == 1
    with pytest.raises(capi.CError, match="shared_weights: expected a folder"):
        capi.load(tiny_file(), shared_weights=b"")


def test_digest_is_blake2b() -> None:
    import hashlib

    for length in (0, 1, 127, 128, 129, 256, 1000):
        data = bytes(i * 7 % 256 for i in range(length))
        assert _core.blake2b(data) == hashlib.blake2b(data, digest_size=32).digest()
