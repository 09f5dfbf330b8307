"""bench/cuda.sh without a card: the table from made-up measurements, the checks on the emulated device."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.cuda_emulated import EmulatedDevice, emulated_library
from helpers.tiny import TinyConfig, write_tiny

pytest.importorskip("cuda_table", reason="bench/ is not beside the tests")

import cuda_card
import cuda_checks
import cuda_peers
import cuda_table
import peers_run
from peers_get import Unavailable

from kosmos_edge import _core, load
from kosmos_edge.quality.cases import world_cases
from kosmos_edge.quality.models import Source

BENCH = Path(__file__).resolve().parents[2] / "bench"
H100 = {
    "card": "NVIDIA H100 80GB HBM3", "capability": "9.0", "multiprocessors": 132, "memory": 85520809984,
    "bandwidth": 3.35232e12, "driver": "CUDA 13.0",
}  # fmt: skip


def write_lines(path: Path, *lines: dict) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def measured(number: int, name: str, peer: str, tool: str, **phases: list[float]) -> list[dict]:
    """Lines of measurements."""
    shared = {"round": number, "pass": name, "peer": peer, "tool": tool, "bits": "b", "about": {}}
    return [shared | {"phase": phase.replace("_", ":"), "values": values} for phase, values in phases.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a run on a card would leave."""
    write_lines(tmp_path / "card.json", H100)
    write_lines(
        tmp_path / "steps.jsonl",
        {"step": "tests", "ok": True, "said": "75 passed"},
        {"step": "compute-sanitizer racecheck", "ok": None, "said": "compute-sanitizer is not installed"},
    )
    check = {"value": 0.008, "wanted": "<= 0.01", "said": "0.0080 over 20 pictures"}
    write_lines(tmp_path / "checks.jsonl", check | {"check": "logits", "holds": True})
    lines: list[dict] = [{"peer": "transformers", "missing": "python has no torch"}]
    for number, speed in ((0, 1.0), (1, 0.5)):  # the card is half as fast in the second round: no ratio changes
        about = {"round": number, "pass": "language"}
        lines += [about | {"begin": True}]
        ours = {"decode": [1600 * speed, 1620 * speed], "first": [2.5 / speed], "photos_64": [280 * speed]}
        lines += measured(number, "language", "kosmos-edge", "ours", **ours)
        lines += measured(number, "language", "llama.cpp language Q4_K_M", "0c1e570", decode=[1000 * speed])
        lines += [about | {"end": True, "seconds": 1.0}, {"roof": {"bandwidth": 3.35e12}}]
    lines += [{"round": 2, "pass": "language", "begin": True}]
    lines += measured(2, "language", "kosmos-edge", "ours", decode=[1.0])  # a pass that was cut off
    lines += [{"decode_bytes": 0.75e9, "model": "full.gguf"}]
    write_lines(tmp_path / "measured-cuda.jsonl", *lines)
    return tmp_path


def test_the_table(folder: Path) -> None:
    lines, right = cuda_table.page(folder)
    text = "\n".join(lines)
    assert right
    assert "NVIDIA H100 80GB HBM3, compute capability 9.0, 80 GiB, 3.35 TB/s" in text
    assert "| compute-sanitizer racecheck | left out | compute-sanitizer is not installed |" in text
    decode = next(line for line in lines if line.startswith("| decoding"))
    assert "1205 tokens/s" in decode, "the median of four, without the pass that was cut off"
    assert "4467 tokens/s, 27% of it" in decode
    assert ">= 1500 on an H100: **NO**" in decode
    assert "llama.cpp language Q4_K_M 750: 1.61x (asked 1.3x: yes)" in decode
    assert "| pixels to the first token | 3.75 ms" in text
    assert "<= 3 on an H100: **NO**" in text
    assert "| photos, batch 64, 40 tokens each | 210 photos/s" in text
    assert "| prompt of 74 tokens | not measured |" in text
    assert "Missing: transformers: python has no torch" in text


def test_what_fails_is_the_table_s_status(folder: Path) -> None:
    assert cuda_table.page(folder)[1]
    failed = {"step": "tests", "ok": False, "said": "1 failed"}
    kept = (folder / "steps.jsonl").read_text()
    write_lines(folder / "steps.jsonl", failed)
    lines, right = cuda_table.page(folder)
    assert not right and "| tests | **NO** | 1 failed |" in lines
    (folder / "steps.jsonl").write_text(kept)
    write_lines(folder / "checks.jsonl", {"check": "c", "value": 1, "wanted": "0", "said": "1", "holds": False})
    lines, right = cuda_table.page(folder)
    assert not right and "| c | 1 | 0 | **NO** |" in lines


def test_the_table_of_nothing(tmp_path: Path) -> None:
    lines, right = cuda_table.page(tmp_path)
    assert right and lines[0] == "no card was described" and "No model was measured." in lines


def test_bandwidth_of_known_cards() -> None:
    assert cuda_card.bandwidth(2_619_000, 5120) == pytest.approx(3.35e12, rel=0.01), "H100 SXM"
    assert cuda_card.bandwidth(10_501_000, 384) == pytest.approx(1.008e12, rel=0.01), "RTX 4090"


def test_batches_of_llama() -> None:
    line = '{"n_kv_max": 7296, "pp": 74, "tg": 40, "pl": 64, "n_kv": 7296, "t_pp": 0.3, "t_tg": 0.1, "t": 0.4}'
    assert peers_run.parse_batched_bench(f"loading\n{line}\n") == ({"photos:64": [160.0]}, {})
    with pytest.raises(Unavailable):
        peers_run.parse_batched_bench("nothing")


def test_absent_peers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded where sources are named, and nothing guessed."""
    monkeypatch.setenv("KOSMOS_EDGE_LLAMA_SOURCE", str(tmp_path))
    monkeypatch.setenv("KOSMOS_EDGE_TORCH_PYTHON", str(tmp_path / "python"))
    monkeypatch.delenv("KOSMOS_EDGE_CUDA_MODEL", raising=False)
    bench = cuda_peers.CudaBench(cuda_peers.parse(["--work", str(tmp_path)]))
    assert [(name, peers) for name, peers in bench.passes() if peers] == []
    assert "is not llama.cpp's source" in bench.missing["llama.cpp"]
    assert "has no torch and transformers" in bench.missing["transformers"]
    for wrong in (["--rounds", "0"], ["--peers", "vllm"]):
        with pytest.raises(SystemExit):
            cuda_peers.parse(["--work", str(tmp_path), *wrong])


def test_the_script(tmp_path: Path) -> None:
    script = str(BENCH / "cuda.sh")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    asked = subprocess.run(["bash", script, "everything"], capture_output=True, text=True, check=False)
    assert asked.returncode == 2 and "unknown step 'everything'" in asked.stderr
    environment = {"KOSMOS_EDGE_CUDA_WORK": str(tmp_path), "KOSMOS_EDGE_CUDA_LIBRARY": "/given.so"}
    command = ["env", *(f"{k}={v}" for k, v in environment.items()), "bash", script, "build", "table"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert "| build | left out | /given.so is given |" in made.stdout
    assert made.stdout == (tmp_path / "table.md").read_text()


# ---- the checks, on the emulated device


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> EmulatedDevice:
    """The emulated device."""
    monkeypatch.setenv("KOSMOS_EDGE_CUDA_LIBRARY", str(emulated_library()))
    if why := dict(_core.devices())["cuda"]:
        pytest.skip(why)
    return EmulatedDevice(emulated_library())


def test_relative_differences() -> None:
    want = np.array([[3.0, 4.0]], np.float32)
    parts = [cuda_checks.squares(want + 0.5, want), cuda_checks.squares(want, want)]
    assert cuda_checks.relative(parts[:1]) == pytest.approx((0.5 / 25) ** 0.5)
    assert cuda_checks.relative(parts) == pytest.approx((0.5 / 50) ** 0.5)


@pytest.mark.usefixtures("device")
def test_nano_on_the_device() -> None:
    """A scene: logits near the float path's, and the processor's ids."""
    (case,) = world_cases(0, 1)
    with load(cuda_checks.NANO, device="cuda") as nano, load(cuda_checks.NANO, device="cpu") as processor:
        source = Source(str(cuda_checks.NANO), offline=True)
        with source.file("q4_k_m:float", None) as path, load(path, device="cpu") as floats:
            (line,) = cuda_checks.against_floats(nano, processor, floats, [case], 4)
        assert line["holds"] and 1e-4 < line["value"] < 1e-2
        same, ids = cuda_checks.same_answers, cuda_checks.said_to(processor, case, 4)
        (line,) = same(nano, processor, [case], 4)
        assert line["holds"] and line["said"].startswith("1 of 1 scenes")
        other = type("Other", (), {"__getattr__": lambda _, name: getattr(processor, name)})()
        other.ask = lambda *a, **k: type("R", (), {"token_ids": [7]})()
        (line,) = same(other, processor, [case], 4)
        assert not line["holds"] and line["value"] == 0 and len(ids) > 4


@pytest.mark.usefixtures("device")
def test_twice_the_same(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    shape = TinyConfig(layers=1, latents=4, vision_layers=1, vision_width=64, vision_ff_width=64, image_size=28)
    write_tiny(path, "Q4_K", seed=2, config=shape)
    lines = list(cuda_checks.same_again(path, "cuda", world_cases(0, 2), 4))
    assert [line["holds"] for line in lines] == [True, True]


def test_memory_is_counted(device: EmulatedDevice) -> None:
    """Of nano, by the device that computes nothing: more than its weights, less than the limit above them."""
    assert device.bytes() == 0
    command = [sys.executable, str(BENCH / "cuda" / "cuda_memory.py"), "--model", str(cuda_checks.NANO)]
    made = subprocess.run([*command, "--emulated", str(emulated_library())], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in made.stdout.splitlines()]
    assert [line["check"] for line in lines] == ["memory: loaded", "memory: at batch 1", "memory: at batch 64"]
    loaded, one, many = (line["value"] for line in lines)
    assert 0 < loaded < one < many and one < 20e6
    assert many - one > 63 * 64 * 4 * 192 * 2 * 2, "keys and values of 63 more pictures"
