"""bench/peers.py: who is measured when, programs that stay loaded, intervals, AVX2, the page. Nothing is timed."""

import itertools
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("peers_report", reason="bench/ is not beside the tests")

import peers
import peers_held
import peers_live
import peers_page
import peers_report
import peers_run
import peers_stats
from peers_get import Unavailable

# A program of the workers' protocol that says who it is, counts its questions, and notes each in a file.
WORKER = """
import json, os, sys
print(json.dumps({"about": {"version": "x", "pid": os.getpid()}, "load_s": 1}), flush=True)
for number, line in enumerate(sys.stdin):
    phase, repeats = line.split()
    with open(sys.argv[1], "a") as file: file.write(f"{sys.argv[2]} {phase} {repeats}\\n")
    if phase == "die": sys.exit("out of luck")
    print(json.dumps({"values": [float(number)] * int(repeats), "peak_rss": 5}), flush=True)
"""


def worker(name: str, log: Path, *phases: str, slow: bool = False) -> peers_run.Peer:
    """A peer that runs WORKER."""
    command = [sys.executable, "-c", WORKER, str(log), name]
    return peers_run.Peer(name, "ours" if name == "us" else name, "8", phases, command, slow=slow)


# ------------------------------------------------------------------------------------------------------- statistics


def test_coverage_is_that_of_the_binomial() -> None:
    """Counted over all ways in which n values lie on either side of the median."""
    for count in range(2, 13):
        for rank in range(1, count // 2 + 1):
            sides = itertools.product((0, 1), repeat=count)
            inside = sum(rank <= sum(side) <= count - rank for side in sides)
            assert peers_stats.coverage(count, rank) == inside / 2**count


def test_the_interval_is_the_narrowest_that_covers_enough() -> None:
    for count in range(2, 40):
        values = [float(v) for v in range(count)]
        random.Random(count).shuffle(values)
        found = peers_stats.interval(values)
        assert found and found.low + found.high == count - 1  # as many values below as above
        rank = int(found.low) + 1
        if count >= peers_stats.ENOUGH:
            assert found.coverage >= 0.95 > peers_stats.coverage(count, rank + 1)
        else:
            assert (found.low, found.high) == (0, count - 1) and found.coverage < 0.95
    assert peers_stats.coverage(peers_stats.ENOUGH - 1, 1) < 0.95 <= peers_stats.coverage(peers_stats.ENOUGH, 1)
    assert peers_stats.interval([1.0]) is None


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    """2,000 samples of a skewed distribution: the share that encloses its median is the stated one."""
    rng, count = random.Random(5), 9
    samples = [[rng.lognormvariate(0.2, 0.5) for _ in range(count)] for _ in range(2000)]
    found = [peers_stats.interval(sample) for sample in samples]
    inside = sum(i.low <= math.exp(0.2) <= i.high for i in found if i) / len(found)
    said = peers_stats.coverage(count, 2)
    assert abs(inside - said) < 3 * math.sqrt(said * (1 - said) / len(found))


def test_verdicts() -> None:
    equal = peers_stats.compared([0.98, 1.05, 1.02, 1.04, 1.01, 1.03])
    assert equal["verdict"] == "equal" and peers_stats.words(equal) == "equal: 1.02 (0.98 to 1.05)"
    assert equal["ratio"] == statistics.median([1.02, 1.03]) and equal["pairs"] == 6
    faster = peers_stats.compared([1.1, 1.2, 1.3, 1.4, 1.5, 1.6])
    assert faster["verdict"] == "faster" and peers_stats.words(faster) == "1.35 (1.10 to 1.60)"
    assert peers_stats.compared([1 / v for v in (1.1, 1.2, 1.3, 1.4, 1.5, 1.6)])["verdict"] == "slower"
    once = peers_stats.compared([1.5])
    assert once["verdict"] is None and peers_stats.words(once) == "1.50"


# ------------------------------------------------------------------------------------------------------------- turns


def test_another_one_begins_in_every_round() -> None:
    programs = [worker(name, Path("x"), "encode") for name in "abc"]
    plan = ["".join(p.name for p in peers_live.order(programs, number)) for number in range(4)]
    assert plan == ["abc", "bca", "cab", "abc"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> peers.Bench:
    """Ours and two peers that are WORKERs; each question is a line of tmp_path/asked."""
    arguments = peers.parse(["--work", str(tmp_path), "--threads", "1", "--rounds", "3"])
    made, log = peers.Bench(arguments), tmp_path / "asked"
    found = [worker("a", log, "encode", "decode"), worker("b", log, "encode", "caption", slow=True)]
    monkeypatch.setattr(made, "_makers", lambda: {"llama.cpp": lambda: found})
    every = (*peers.PHASES, "folder:1", "folder:8")
    monkeypatch.setattr(made, "ours", lambda: worker("us", log, *every))
    monkeypatch.setattr(made, "roof", lambda: {"read_bytes_per_s": 4e10})
    return made


def asked(tmp_path: Path) -> list[str]:
    """The questions, without those that only warm up (a phase's first of a process)."""
    return (tmp_path / "asked").read_text().splitlines()


def test_a_turn_is_one_phase_of_every_program(bench: peers.Bench, tmp_path: Path) -> None:
    assert bench.measure()
    lines = [m for m in bench.finished() if "phase" in m]
    plan = [(m["round"], m["pass"], "".join(n["peer"] for n in group)) for m, group in grouped(lines)]
    assert plan[:5] == [(0, "encode", "usab"), (0, "prefill", "us"), (0, "decode", "usa"), (0, "caption", "usb"),
                        (0, "folder", "usus")]  # fmt: skip
    assert [names for _, phase, names in plan if phase == "encode"] == ["usab", "abus", "busa"]
    questions = asked(tmp_path)
    assert questions[:7] == ["us encode 1", "us encode 2", "a encode 1", "a encode 2", "b encode 1", "b encode 1",
                             "us prefill 1"]  # fmt: skip
    assert questions.count("us encode 1") == questions.count("a encode 1") == 1  # ours and a stayed loaded
    assert questions.count("b encode 1") == 2 * 3  # b is slow: loaded and warmed for each of its turns
    assert not bench.live.programs


def grouped(lines: list[dict]) -> list[tuple[dict, list[dict]]]:
    """Lines of each pass together."""
    found = [list(group) for _, group in itertools.groupby(lines, lambda m: (m["round"], m["pass"]))]
    return [(group[0], group) for group in found]


def test_pieces_are_whole_turns_and_make_the_same_plan(bench: peers.Bench) -> None:
    """Time for one turn a piece: every piece ends one, none is repeated or left out."""
    bench.arguments.seconds, bench.arguments.resume, pieces = 1e-9, True, 0
    while not bench.measure():
        pieces += 1
        assert bench.load()[-1].get("end") and not bench.live.programs
    assert pieces == 3 * 5 - 1
    ended = [(m["round"], m["pass"]) for m in bench.load() if m.get("end")]
    assert ended == list(itertools.product(range(3), ("encode", "prefill", "decode", "caption", "folder")))


def test_time_is_shared_by_the_numbers_of_threads(bench: peers.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[float | None] = []
    other = peers.Bench(bench.arguments, 2)
    assert other.log != bench.log

    def measure(started: float | None = None) -> bool:
        asked_for.append(started)
        return True

    for one in (bench, other):
        monkeypatch.setattr(one, "measure", measure)
    bench.note(round=0)
    assert peers.measure_all([bench, other], resume=True) and bench.log.exists()
    assert asked_for[0] is None and asked_for[1] is not None
    assert peers.measure_all([bench, other], resume=False) and not bench.log.exists()


def test_programs_are_stopped_between_their_turns(tmp_path: Path) -> None:
    live = peers_live.Live(1)
    try:
        _, about = live.measure(worker("a", tmp_path / "asked", "encode"), "encode")
        status = Path(f"/proc/{about['pid']}/stat")
        if not status.exists():
            pytest.skip("no /proc here")
        os.waitid(os.P_PID, about["pid"], os.WSTOPPED | os.WNOWAIT)
        assert status.read_text().rpartition(")")[2].split()[0] == "T"
        assert live.measure(worker("a", tmp_path / "asked", "encode"), "encode")[0] == [2.0, 2.0]
    finally:
        live.end()
    assert not status.exists()


def test_a_program_that_dies_is_unavailable_and_started_again(tmp_path: Path) -> None:
    live, peer = peers_live.Live(1), worker("a", tmp_path / "asked", "encode", "die")
    with pytest.raises(Unavailable, match="a ended with status 1: out of luck"):
        live.measure(peer, "die")
    assert live.measure(peer, "encode")[0] == [1.0, 1.0]
    live.end()
    with pytest.raises(Unavailable, match="gone"):
        live.measure(peers_run.Peer("gone", "t", "8", ("encode",), [str(tmp_path / "nothing")]), "encode")


def test_llama_bench_is_asked_for_one_phase() -> None:
    command = peers_run.llama_bench(Path("bin"), Path("m.gguf"))
    peer = peers_run.Peer("l", "l", "4", ("prefill", "decode"), command, "llama-bench")
    prefill, decode = (peers_live.narrowed(peer, phase).command for phase in ("prefill", "decode"))
    assert prefill[prefill.index("-n") + 1] == "0" and prefill[prefill.index("-p") + 1] == "74"
    assert decode[decode.index("-p") + 1] == "0" and decode[decode.index("-n") + 1] == "31"
    assert peer.command == command


# ------------------------------------------------------------------------------------------------------ held to AVX2


@pytest.mark.parametrize(("flag", "code"), [
    ("-mavx2", "_mm256_add_epi32(_mm256_loadu_si256(p), _mm256_loadu_si256(p))"),
    ("-mavx512f", "_mm512_castsi512_si256(_mm512_mul_epi32(_mm512_loadu_si512(p), _mm512_loadu_si512(p)))"),
    ("-mavxvnni", "_mm256_dpbusd_avx_epi32(_mm256_loadu_si256(p), _mm256_loadu_si256(p), _mm256_loadu_si256(p))"),
])  # fmt: skip
def test_what_was_compiled_is_searched(flag: str, code: str, tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if not compiler or not shutil.which("objdump"):
        pytest.skip("no compiler or no binutils")
    (tmp_path / "x.cpp").write_text(f"#include <immintrin.h>\n__m256i f(const __m256i* p) {{ return {code}; }}\n")
    command = [compiler, "-O2", flag, "-c", str(tmp_path / "x.cpp"), "-o", str(tmp_path / "x.so")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"no {flag} here")
    if flag == "-mavx2":
        assert peers_held.search([tmp_path / "x.so"]) > 2
        (tmp_path / "y.so").write_text("no program")
        with pytest.raises(Unavailable, match=r"objdump cannot read .*y\.so"):
            peers_held.check("llama.cpp", tmp_path / "x.so")
    else:
        with pytest.raises(Unavailable, match=r"x\.so is not held to AVX2"):
            peers_held.check("ik_llama.cpp", tmp_path / "x.so")


def test_what_cannot_be_held_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = peers.Bench(peers.parse(["--work", str(tmp_path), "--avx2"]), 1, avx2=True)
    peer = worker("onnxruntime", tmp_path / "asked", "encode")
    monkeypatch.setattr(bench, "_makers", lambda: {"onnxruntime": lambda: [peer]})
    assert not any(found for _, found in bench.passes())
    assert "no switch" in bench.missing["onnxruntime"]
    assert bench.environment["KOSMOS_EDGE_ISA"] == "avx2" and bench.log.name == "measured-1-avx2.jsonl"


# -------------------------------------------------------------------------------------------------------------- page


def test_the_page_says_what_is_equal(bench: peers.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, wobble in enumerate((0.97, 0.99, 1.0, 1.01, 1.02, 1.03)):
        about = {"round": number, "pass": "encode"}
        bench.note(**about, begin=True)
        for peer, ms in (("us", 100.0), ("near", 100 * wobble), ("far", 200 * wobble)):
            tool = "ours" if peer == "us" else peer
            facts = {} if tool == "ours" else {"held": f"how {peer} is held"}
            bench.note(**about, peer=peer, tool=tool, bits="8 / 8", phase="encode", values=[ms], about=facts)
        bench.note(**about, end=True, seconds=1.0)
    monkeypatch.setattr(bench, "our_model", lambda: str(NANO))
    monkeypatch.setattr(bench, "avx2", True)
    peers_page.write(tmp_path / "page.md", tmp_path, lambda threads, avx2: bench)
    text = (tmp_path / "page.md").read_text()
    assert "## 1 thread, everybody held to AVX2" in text and "6 rounds.\n" in text
    assert "| equal: 1.00 (0.97 to 1.03) |" in text and "| 2.01 (1.94 to 2.06) |" in text
    assert "| encode | equal: 1.00 (0.97 to 1.03) | near |" in text
    assert "- near: how near is held" in text
    assert peers_page.covers(5) == "; so few give ranges, which hold the median with 94 %, not 95 %"
    assert json.loads(json.dumps(bench.report()))["compared_to_best_peer"]["encode"]["verdict"] == "equal"


def test_composed_captions_are_of_one_round() -> None:
    """A machine that is half as fast in the second round: the ratio is the same in both."""
    lines = []
    for number, slow in enumerate((1.0, 2.0)):
        for peer, values in {
            "us": {"caption": 1000 * slow},
            "p": {"encode": 500 * slow, "prefill": 400 * slow, "decode": 31 / slow},
        }.items():
            for phase, value in values.items():
                tool = "ours" if peer == "us" else peer
                lines.append({"round": number, "pass": phase, "peer": peer, "tool": tool, "bits": "",
                              "phase": phase, "values": [value]})  # fmt: skip
    parts = dict.fromkeys(("encode", "prefill", "decode"), "p")
    assert peers_report.composed_ratios(lines, parts) == [1.9, 1.9]
    assert peers_report.composed_ratios(lines[:-1], parts) == [1.9]  # the second round's decode is missing


NANO = Path(peers.__file__).parent.parent / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"
