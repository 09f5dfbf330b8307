"""kosmos-edge bench: its report's form and arithmetic, probes, and counts of the work. No figure of time is judged."""

import json
import math
import os

import pytest
from helpers.api_model import tiny_file

import kosmos_edge
from kosmos_edge import _core, cli
from kosmos_edge.bench import loading as bench_load
from kosmos_edge.bench import speed as bench
from kosmos_edge.bench.cost import Cost, Looks
from kosmos_edge.bench.workload import Sample, Work, synthetic_photo
from kosmos_edge.cli.bench import parse_batches
from kosmos_edge.errors import DeviceUnavailable, InvalidRequest

NANO = os.path.join(os.path.dirname(kosmos_edge.__file__), "data", "nano-q4_k_m.gguf")


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory probe reads little here; CI machines are small."""
    monkeypatch.setattr(bench, "PROBE_BYTES", 4 << 20)
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)


def test_answers_that_end_early_are_no_captions_of_full_length() -> None:
    """Made-up weights end some answers early; beside a peer whose answers have a fixed length they would look fast."""
    engine = _core.Engine(NANO, device="cpu", threads=1, drafts="off")
    work = Work(engine, tokens=10, words=3)
    assert min(work.caption().tokens for _ in range(4)) < 10
    again = Work(engine, tokens=10, words=3)
    assert [again.caption(whole=True).tokens for _ in range(4)] == [10] * 4
    with pytest.raises(InvalidRequest, match="ended 64 answers before 60 tokens"):
        Work(engine, tokens=60, words=3).caption(whole=True)


def test_report_of_nano(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "-m", NANO, "-t", "1", "--rounds", "2", "--tokens", "8", "--batches", "1,2", "-f", "json"]
    assert cli.run(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["threads"] == 1 and report["rounds"] == 2 and report["device"] == "cpu"
    assert report["isa"] in _core.available_isas()
    phases = report["phases"]
    assert set(phases) == {"encode", "prefill", "decode", "caption", "folder", "drafts"}
    drafts = phases["drafts"]
    assert 0 < drafts["passes"] < drafts["tokens"] and 0 < drafts["accepted"] <= drafts["drafted"]
    assert drafts["tokens_per_pass"] == drafts["tokens"] / drafts["passes"] > 1
    assert f"{drafts['tokens_per_pass']:.2f} tokens a pass" in bench.table(report)
    for name in ("encode", "prefill", "decode", "caption"):
        ms = phases[name]["ms"]
        assert 0 < ms["min"] <= ms["median"] <= ms["max"] and ms["spread"] >= 0
    cost, roof = Cost.of(NANO), report["roof"]
    encode = phases["encode"]
    assert encode["macs"] == cost.encode_macs()
    assert math.isclose(encode["macs_per_s"], encode["macs"] / encode["ms"]["median"] * 1e3)
    assert math.isclose(encode["of_roof"], encode["macs_per_s"] / roof["int8_macs_per_s"])
    prefill = phases["prefill"]
    assert prefill["macs"] == cost.prefill_macs(int(prefill["tokens"])) and prefill["tokens"] > 64
    decode = phases["decode"]
    assert decode["bytes_per_token"] == cost.decode_bytes(prefill["tokens"] + 4)
    assert math.isclose(decode["of_roof"], decode["bytes_per_s"] / roof["read_bytes_per_s"])
    assert set(phases["folder"]) == {"1", "2"}
    assert report["memory"]["kv_token_bytes"] == cost.token_bytes() and report["kv_type"] == "f16"
    assert report["memory"]["file"] == os.path.getsize(NANO) < report["memory"]["peak_resident"]
    assert report["load"]["warm_first_token_ms"] > report["load"]["warm_ms"] > 0
    assert "load_ms" in report["load"]["cold"] or "skipped" in report["load"]["cold"]
    assert len(report["logits_sha256"]) == 64
    text = bench.table(report)
    assert all(word in text for word in ("encode", "batch 2", "cold:", "GB/s read", report["logits_sha256"][:16]))


def test_keys_and_values_of_8_bits(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "-m", NANO, "-t", "1", "--rounds", "1", "--tokens", "4", "--phases", "decode", "-f", "json"]
    assert cli.run([*words, "--kv-type", "q8_0"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kv_type"] == "q8_0" and report["memory"]["kv_token_bytes"] == Cost.of(NANO, "q8_0").token_bytes()
    assert report["phases"]["decode"]["bytes_per_token"] == Cost.of(NANO, "q8_0").decode_bytes(2, 2)
    assert Cost.of(NANO, "q8_0").token_bytes() * 32 == Cost.of(NANO).token_bytes() * 17
    assert "(q8_0)" in bench.table(report)


def test_only_the_phases_that_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "-m", str(tiny_file()), "-t", "1", "--rounds", "1", "--phases", "encode,hash", "-f", "json"]
    assert cli.run(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["phases"]) == {"encode"} and "roof" not in report and "load" not in report
    assert report["phases"]["encode"]["of_roof"] is None
    assert "encode" in bench.table(report)


def test_unknown_phase_and_bad_batches_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "-m", str(tiny_file()), "--phases", "encode,sing"]) == 2
    assert "sing" in capsys.readouterr().err
    for text in ("", "0", "1,x", "300"):
        with pytest.raises(InvalidRequest, match="batches"):
            parse_batches(text)
    assert parse_batches("1,16") == [1, 16]


def test_logits_hash_is_the_same_with_any_threads() -> None:
    answers = {Work(_core.Engine(NANO, threads=threads)).logits() for threads in (1, 2, 3)}
    assert len(answers) == 1


def test_every_picture_is_another_one() -> None:
    work = Work(_core.Engine(str(tiny_file()), threads=1), tokens=4)
    assert len({work.photo() for _ in range(5)}) == 5
    assert synthetic_photo(3).tobytes() == synthetic_photo(3).tobytes() != synthetic_photo(4).tobytes()


def test_words_set_the_length_of_the_prompt() -> None:
    work = Work(_core.Engine(NANO, threads=1), tokens=4, words=7)
    prefill, _, ids = work.answer()
    assert prefill.tokens == 64 + 3 + 7 and 1 <= len(ids) <= 4


def test_summary() -> None:
    found = bench.summary([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (found["median"], found["min"], found["max"]) == (3.0, 1.0, 5.0)
    assert math.isclose(found["spread"], (4.5 - 1.5) / 2 / 3)
    assert bench.summary([2.0]) == {"median": 2.0, "min": 2.0, "max": 2.0, "spread": 0.0}


def test_phase_rates() -> None:
    found = bench.phase("decode", [Sample(0.5, 31), Sample(1.0, 31), Sample(0.25, 31)])
    assert found["ms"]["median"] == 500.0 and found["tokens_per_s"]["median"] == 62.0 and found["tokens"] == 31


def test_cost_of_the_published_sizes() -> None:
    vision = {"image_size": 224, "patch_size": 14, "width": 1024, "ff_width": 4096, "layers": 24}
    text = {"width": 2048, "ff_width": 8192, "layers": 24, "vocab": 65037}
    cost = Cost({"vision": vision, "decoder": text, "latents": 64}, 754_000_000, 2, True)
    assert round(cost.encode_macs() / 1e9, 1) == 82.4  # tower 81.0, folded resampler 1.4
    assert round(cost.prefill_macs(74) / 1e9, 1) == 89.8
    assert cost.decode_bytes(90) == 754_000_000 + 2 * 24 * 2048 * 2 * 90


def test_cost_of_a_qformer() -> None:
    """BLIP-2's published sizes, counted by hand: tower 260.4, Q-Former and its product 6.4."""
    vision = {"image_size": 224, "patch_size": 14, "width": 1408, "ff_width": 6144, "layers": 39}
    qformer = {"width": 768, "ff_width": 3072, "layers": 12, "queries": 32, "cross_every": 2}
    cost = Cost({"vision": vision, "decoder": {"width": 2560}, "qformer": qformer}, 1, 2, True)
    assert round(cost.encode_macs() / 1e9, 1) == 266.8


def test_cost_of_an_abstractor() -> None:
    """mPLUG-Owl's published sizes, counted by hand: tower 81.0, abstractor and its product 10.2."""
    vision = {"image_size": 224, "patch_size": 14, "width": 1024, "ff_width": 4096, "layers": 24}
    abstractor = {"ff_width": 4096, "layers": 6, "queries": 64}
    cost = Cost({"vision": vision, "decoder": {"width": 4096}, "abstractor": abstractor}, 1, 2, True)
    assert round(cost.encode_macs() / 1e9, 1) == 91.2


def test_cost_of_an_encoder_and_its_decoder() -> None:
    """Flan-T5 XL's sizes, counted by hand: 51 M products of a block, 16.8 M of its cross-attention."""
    text = {"width": 2048, "ff_width": 5120, "layers": 24, "vocab": 32100}
    block, square = 4 * 2048**2 + 3 * 2048 * 5120, 2048**2
    looks = Looks(24 * 2 * square, 24 * 2 * square, 24 * 2048, 24 * 2048)
    cost = Cost({"decoder": text, "encoder": {"layers": 24}}, 10**9, 2, True, 2048, 2048, True, looks)
    encoder = 24 * (40 * block + 2 * 40 * 40 * 2048)
    decoder = 24 * (block + 2 * 2048 + 2 * square + 2 * 40 * 2048) + 2048 * 32100
    assert cost.prefill_macs(40) == encoder + 40 * 24 * 2 * square + decoder
    assert cost.decode_bytes(40 + 16, 16) == 10**9 + 2 * 4 * 40 * 24 * 2048 + 2 * 24 * 2048 * 2 * 16


def test_bytes_of_a_token_are_those_of_the_decoder() -> None:
    tensors = {name: size for name, *_, size in _core.GgufFile(NANO).tensors()}
    vision = sum(size for name, size in tensors.items() if name.startswith(("v.", "mm.")))
    assert Cost.of(NANO).weight_bytes == sum(tensors.values()) - vision


@pytest.mark.parametrize("isa", _core.available_isas())
def test_probes_give_a_rate_per_round(isa: str) -> None:
    for kind in ("read", "int8", "float32"):
        rates = _core.probe(kind, isa, threads=2, rounds=3, bytes=1 << 20)
        assert len(rates) == 3 and all(math.isfinite(rate) and rate > 1e6 for rate in rates)


def test_probe_rejects_what_makes_no_sense() -> None:
    for arguments in ({"kind": "write"}, {"kind": "int8", "threads": 0}, {"kind": "int8", "rounds": 0}):
        with pytest.raises(InvalidRequest):
            _core.probe(**arguments)
    with pytest.raises(InvalidRequest, match="bytes"):
        _core.probe("read", threads=2, bytes=4096)
    with pytest.raises(DeviceUnavailable):
        _core.probe("int8", isa="mmx")


def test_page_cache_of_a_file(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20))
    before = bench_load.resident_fraction(str(path))
    if before is None:
        pytest.skip("no mincore here")
    assert before == 1.0
    bench_load.drop_from_cache(str(path))
    assert 0.0 <= bench_load.resident_fraction(str(path)) <= 1.0  # not every file system gives pages up
