"""bench/peers.py: parsers on recorded output, the arithmetic of the report, stand-in models. Nothing is timed."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("peers_report", reason="bench/ is not beside the tests")

import peers
import peers_models
import peers_report
import peers_run
from peers_get import Unavailable

from kosmos_edge import _core

# `llama-bench -p 74 -n 31 -r 2 -o json` of the two engines, shortened; ik_llama.cpp prints other lines first.
LLAMA_BENCH = """[
  {"build_commit": "0c1e570", "n_threads": 2, "n_prompt": 74, "n_gen": 0, "avg_ts": 172.4,
   "samples_ns": [426651716, 431778566], "samples_ts": [173.444, 171.384]},
  {"build_commit": "0c1e570", "n_threads": 2, "n_prompt": 0, "n_gen": 31, "avg_ts": 40.4,
   "samples_ns": [761672018, 771499233], "samples_ts": [40.6999, 40.1815]}
]
"""


def test_llama_bench_output() -> None:
    for before in ("", "load_backend: something\n"):
        values, about = peers_run.parse_llama_bench(before + LLAMA_BENCH, {"prefill", "decode"})
        assert values == {"prefill": [426.651716, 431.778566], "decode": [40.6999, 40.1815]}
        assert about == {"version": "0c1e570", "threads": 2}
    prefill = json.dumps(json.loads(LLAMA_BENCH)[:1])
    assert set(peers_run.parse_llama_bench(prefill, {"prefill"})[0]) == {"prefill"}
    with pytest.raises(Unavailable, match="prefill"):
        peers_run.parse_llama_bench(prefill, {"prefill", "decode"})


def test_mtmd_output() -> None:
    assert peers_run.parse_mtmd('{"ms": [889.839, 822.690], "peak_rss": 1492881408}') == {"encode": [889.839, 822.690]}


def test_a_program_that_fails_is_unavailable(tmp_path: Path) -> None:
    dying = [sys.executable, "-c", "import sys; sys.exit('out of luck')"]
    for peer in (
        peers_run.Peer("gone", "t", "8", ("encode",), [str(tmp_path / "nothing")]),
        peers_run.Peer("dies", "t", "8", ("encode",), dying),
    ):
        with pytest.raises(Unavailable, match=peer.name):
            peers_run.measure(peer, 1, peer.phases)


def test_worker_protocol() -> None:
    code = (
        "import sys, json\nprint(json.dumps({'about': {'version': 'x'}, 'load_s': 1}))\n"
        "for n, line in enumerate(sys.stdin): print(json.dumps({'values': [n], 'peak_rss': 5, 'said': line}))"
    )
    peer = peers_run.Peer("p", "t", "8", ("encode", "decode"), [sys.executable, "-c", code])
    values, about = peers_run.measure(peer, 1, ("encode", "decode"))
    assert values == {"encode": [1], "decode": [2]}  # the first answer about encode only warmed up
    assert about == {"version": "x", "load_s": 1, "peak_rss": 5}


def measured(number: int, name: str, peer: str, tool: str, **phases: list[float]) -> list[dict]:
    """Lines of the log."""
    shared = {"round": number, "pass": name, "peer": peer, "tool": tool, "bits": "8 / 8", "about": {}}
    return [shared | {"phase": phase.replace("_", ":"), "values": values} for phase, values in phases.items()]


@pytest.fixture
def found() -> list[dict]:
    """Two rounds; in the second the machine is half as fast."""
    lines: list[dict] = []
    for number, slow in enumerate((1.0, 2.0)):
        for name in ("a", "b"):
            lines += measured(
                number, name, "us", "ours", encode=[100 * slow], prefill=[200 * slow], decode=[40 / slow],
                caption=[1000 * slow],
            )  # fmt: skip
        lines += measured(number, "a", "ggml", "g", prefill=[400 * slow], decode=[31 / slow])
        lines += measured(number, "a", "ggml vision", "g", encode=[500 * slow])
        lines += measured(number, "a", "ort", "o", encode=[150 * slow])
        lines += measured(
            number, "b", "torch", "t", encode=[200 * slow], prefill=[300 * slow], decode=[20 / slow],
            caption=[2500 * slow],
        )  # fmt: skip
        lines += measured(number, "folder", "us", "ours", folder_1=[1.0 / slow], folder_8=[1.8 / slow])
        lines.append({"roof": {"read_bytes_per_s": 4e10, "int8_macs_per_s": 1e12, "float32_macs_per_s": 1e11}})
    return [*lines, {"peer": "ik", "missing": "no compiler"}]


def make_cost() -> SimpleNamespace:
    """A model's cost in round numbers."""
    return SimpleNamespace(
        encode_macs=lambda: 8e10, prefill_macs=lambda tokens: tokens * 1e9, decode_bytes=lambda positions: 8e8
    )


def test_report_has_the_fixed_form(found: list[dict]) -> None:
    result = peers_report.report(found, {"threads": 2, "isa": "native"}, make_cost())
    assert set(result["ratio_to_best_peer"]) == {"encode", "prefill", "decode", "caption", "folder_batch8_over_1"}
    assert {"machine", "phases", "ratio_to_best_peer"} <= set(result)
    for entry in result["phases"].values():
        assert {"ours", "peers", "roof"} <= set(entry)
    assert result["missing_peers"] == {"ik": "no compiler"}
    assert json.loads(json.dumps(result)) == result


def test_report_arithmetic(found: list[dict]) -> None:
    result = peers_report.report(found, {"threads": 2, "isa": "native"}, make_cost())
    ratios, phases = result["ratio_to_best_peer"], result["phases"]
    # Pairs within a round: what the machine does between rounds does not show.
    assert phases["encode"]["ratios"] == {"ggml vision": 5.0, "ort": 1.5, "torch": 2.0}
    assert ratios["encode"] == 1.5 and result["best_peer"]["encode"] == "ort"
    assert ratios["prefill"] == 1.5 and result["best_peer"]["prefill"] == "torch"
    assert math.isclose(ratios["decode"], 40 / 31) and result["best_peer"]["decode"] == "ggml"
    assert math.isclose(ratios["folder_batch8_over_1"], 1.8)
    caption = phases["caption"]
    assert set(caption["peers"]) == {"ggml + ggml vision", "torch"}  # onnxruntime alone makes no caption
    assert caption["peers"]["torch"] == 3750.0  # its own call, the median of 2500 and 5000
    ggml = 750 + 600 + 31 / 23.25 * 1e3  # medians 500, 1000; 400, 800; 31, 15.5
    assert math.isclose(caption["peers"]["ggml + ggml vision"], ggml)
    assert caption["ratios"]["torch"] == 2.5
    assert ratios["caption"] == 1.9  # in either round: (500 + 400 + 1000) / 1000 and twice as much over 2000
    assert result["best_peer"]["caption"] == "ggml + ggml vision"
    two, imaginary = caption["composed"].values()
    assert math.isclose(two, 225 + 600 + 31 / 23.25 * 1e3)
    assert math.isclose(imaginary, 225 + 450 + 31 / 23.25 * 1e3)
    assert phases["encode"]["roof"] == 80.0 and phases["prefill"]["roof"] == 74.0 and phases["decode"]["roof"] == 50.0
    assert math.isclose(caption["roof"], 80 + 74 + 620)


def test_tables_show_every_peer_and_what_is_missing(found: list[dict]) -> None:
    result = peers_report.report(found, {"threads": 2, "isa": "native"}, make_cost())
    for markdown in (False, True):
        text = peers_report.tables(result, markdown)
        for word in ("ggml vision", "ort", "torch", "1.50", "ik: no compiler", "best two tools", "1.80"):
            assert word in text


def test_report_without_peers(found: list[dict]) -> None:
    ours = [m for m in found if m.get("tool") == "ours"]
    result = peers_report.report(ours, {"threads": 1, "isa": "native"}, make_cost())
    assert result["ratio_to_best_peer"]["encode"] is None
    assert "kosmos-edge" in peers_report.tables(result)


def test_resumed_runs_do_not_repeat_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = peers.parse(
        ["--work", str(tmp_path), "--threads", "1", "--rounds", "2", "--resume", "--peers", "llama.cpp"]
    )
    bench = peers.Bench(arguments)
    peer = peers_run.Peer("p", "t", "8", ("encode",), ["x"])
    monkeypatch.setattr(bench, "passes", lambda: iter([("one", [peer]), ("folder", []), ("empty", [])]))
    ran: list[tuple[int, str]] = []

    def run_pass(number: int, name: str, _: list) -> None:
        ran.append((number, name))
        bench.note(round=number, **{"pass": name}, end=True, seconds=1.0)

    monkeypatch.setattr(bench, "run_pass", run_pass)
    bench.note(round=0, **{"pass": "one"}, end=True, seconds=1.0)
    assert bench.measure()
    assert ran == [(0, "folder"), (1, "one"), (1, "folder")]  # a pass of nobody is none
    bench.arguments.seconds = 1e-9
    bench.arguments.rounds = 4
    assert not bench.measure()  # one pass, then the time is over
    assert ran[3:] == [(2, "one")]


def test_a_pass_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    bench = peers.Bench(peers.parse(["--work", str(tmp_path), "--threads", "1"]))
    for values, end in ([1.0], False), ([2.0], True), ([3.0], False):
        bench.note(round=0, **{"pass": "one"}, begin=True)
        bench.note(round=0, **{"pass": "one"}, phase="encode", values=values)
        if end:
            bench.note(round=0, **{"pass": "one"}, end=True, seconds=1.0)
    bench.note(peer="ik_llama.cpp", missing="no compiler")
    assert [m.get("values") for m in bench.finished()] == [[2.0], None]


def test_command_line() -> None:
    with pytest.raises(SystemExit):
        peers.parse(["--peers", "llama.cpp,nobody"])
    for threads in ("0", "1,0", "1,x", ""):
        with pytest.raises(SystemExit):
            peers.parse(["--threads", threads])
    assert peers.parse(["--quick"]).rounds == 2 and peers.parse(["--peers", "llama.cpp"]).peers == ["llama.cpp"]
    assert peers.parse([]).rounds >= 5 and 1 in peers.parse([]).threads
    assert peers.parse(["--threads", "1,2"]).threads == [1, 2]


def test_stand_ins_have_the_published_sizes() -> None:
    tensors = peers_models.decoder_tensors("Q4_0", own_output=False)
    weights = sum(math.prod(t.shape) for t in tensors if len(t.shape) > 1 and t.name.startswith("blk."))
    assert weights == 24 * (4 * 2048**2 + 2 * 2048 * 8192)
    own = peers_models.decoder_tensors("Q4_0", own_output=True)
    assert peers_models.decode_bytes(own) == peers_models.decode_bytes(tensors)
    vision = peers_models.vision_tensors("Q8_0")
    tower = sum(math.prod(t.shape) for t in vision if t.name.startswith("v.blk.") and len(t.shape) > 1)
    assert tower == 25 * (4 * 1024**2 + 2 * 1024 * 4096)  # the graph leaves the last one out


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16"])
def test_random_blocks_decode_to_reasonable_values(kind: str, tmp_path: Path) -> None:
    info = peers_models.TensorInfo("x.weight", kind, (16, 512))
    data = peers_models.random_tensor(info, np.random.default_rng(1))
    assert len(data) == info.nbytes
    values = np.frombuffer(_core.dequantize(kind, data, 16 * 512), np.float32)
    assert 0.017 < values.std() < 0.023 and abs(values.mean()) < 0.004


def test_stand_in_file_is_readable(tmp_path: Path) -> None:
    tensors = [
        peers_models.TensorInfo("a.weight", "Q4_0", (4, 64)),
        peers_models.TensorInfo("b_norm.weight", "F32", (64,)),
    ]
    peers_models.write_gguf(tmp_path / "x.gguf", [("general.architecture", "str", "gpt2")], tensors)
    file = _core.GgufFile(str(tmp_path / "x.gguf"))
    assert [entry[0] for entry in file.tensors()] == ["a.weight", "b_norm.weight"]
    assert file.tensor_data("b_norm.weight") == np.ones(64, np.float32).tobytes()
