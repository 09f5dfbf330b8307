"""bench/llava.py: the files of llama.cpp's pair, the passes, the page. Nothing is timed."""

import json
from pathlib import Path

import pytest

pytest.importorskip("peers_report", reason="bench/ is not beside the tests")

import llava
import llava_models

from kosmos_edge import _core

TINY = llava_models.Sizes("tiny", 256, 512, 2, 4, 2, 4)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tower of three layers of width 256."""
    changes = {"vision": 256, "vision_ff": 256, "vision_layers": 3, "vision_heads": 4}
    monkeypatch.setitem(llava_models.MODELS, "tinyllava", TINY)
    for name, value in changes.items():
        monkeypatch.setitem(llava_models.VISION, name, value)


def test_the_sizes_are_the_published_ones() -> None:
    tiny, large = llava_models.MODELS["tinyllava"], llava_models.MODELS["llava-7b"]
    counts = {}
    for name, sizes in (("tiny", tiny), ("large", large)):
        tensors = llava_models.text_tensors(sizes, "Q4_0")
        counts[name] = sum(t.shape[0] * (t.shape[1] if len(t.shape) > 1 else 1) for t in tensors)
    assert counts["tiny"] == 1_100_048_384 + 2 * 64 * 2048  # TinyLLaMA's, and 64 rows more of two matrices
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert counts["large"] == 8 * layer + 2 * 32064 * 4096 + 4096
    assert "8 of its 32 layers" in large.about and "layers" not in tiny.about


def test_the_pair_is_read_by_the_engine(tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    llava_models.write_text(text, TINY, "Q4_K_M")
    found = {name: dtype for name, dtype, *_ in _core.GgufFile(str(text)).tensors()}
    assert found["output.weight"] == "Q6_K" and found["blk.0.ffn_gate.weight"] == "Q4_K"
    assert {found[f"blk.{i}.attn_v.weight"] for i in range(2)} <= {"Q4_K", "Q6_K"}
    assert found["blk.1.ffn_down.weight"] == "Q6_K"  # the last layer gets more bits


def test_our_file_and_theirs_are_made_and_answer(small: None, tmp_path: Path) -> None:
    arguments = llava.parse(["--work", str(tmp_path), "--peers", ""])
    bench = llava.LlavaBench(arguments)
    assert bench.our_model().exists()
    command = bench.ours().command
    assert command[2:] == ["ours", str(bench.our_model()), "{threads}", str(llava_models.WORDS)]
    from peers_workers import Ours

    ours = Ours(command[3], 1, words=llava_models.WORDS)
    prefill, _, _ = ours.work.answer()
    assert prefill.tokens == llava_models.PROMPT == 600


def test_page_of_what_was_measured(small: None, tmp_path: Path) -> None:
    bench = llava.LlavaBench(llava.parse(["--work", str(tmp_path), "--threads", "1"]))
    shared = {"round": 0, "pass": "language", "bits": "", "about": {}}
    lines = [shared | {"begin": True}]
    for peer, tool, ms in (("kosmos-edge q4_k_m", "ours", 50.0), ("llama.cpp Q4_0", "llama.cpp", 100.0)):
        lines.append(shared | {"peer": peer, "tool": tool, "phase": "prefill", "values": [ms]})
    lines += [shared | {"roof": {"read_bytes_per_s": 3e10, "int8_macs_per_s": 7e11}}, shared | {"end": True}]
    bench.log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = llava.page(llava.measured(bench.arguments))
    assert "## tiny, 2 of its 4 layers" in text and "reads 30.0 GB/s, 700 thousand" in text
    assert "llama.cpp Q4_0 |  | 100 | 0 % | 2.00 |" in text


def test_the_roof_is_measured_in_a_process_of_its_own(small: None, tmp_path: Path) -> None:
    roof = llava.LlavaBench(llava.parse(["--work", str(tmp_path), "--threads", "1"])).roof()
    assert roof["read_bytes_per_s"] > 1e8 and roof["int8_macs_per_s"] > 1e8 and roof["float32_macs_per_s"] > 1e8


def test_unknown_peers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        llava.parse(["--peers", "onnxruntime"])
    assert "unknown peers: onnxruntime" in capsys.readouterr().err
