"""The cost model of kosmos-edge bench: its parts counted by hand, its sums, and what it refuses. Nothing is timed."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.api_model import tiny_file

import kosmos_edge
from kosmos_edge import _core, cli
from kosmos_edge.bench import predict, predict_kernels, speed
from kosmos_edge.bench.cost import Cost
from kosmos_edge.errors import InvalidRequest

NANO = os.path.join(os.path.dirname(kosmos_edge.__file__), "data", "nano-q4_k_m.gguf")
ROOF = {"read_bytes_per_s": 40e9, "int8_macs_per_s": 500e9, "float32_macs_per_s": 100e9}
# Round efficiencies, to count with.
MANY, ONE = {"I8": 0.5, "Q4_K": 0.25, "Q8_0": 0.5}, {"Q4_K": 0.5, "Q6_K": 0.8}
PLAIN = predict_kernels.Kernels(MANY, ONE, float32=0.5, element=10.0, step_s=0.0, i8=True)


def work() -> predict.Work:
    """KOSMOS-2's published sizes, one layer of each kind of net; 74 positions, 32 tokens."""
    vision = {"image_size": 224, "patch_size": 14, "width": 1024, "ff_width": 4096, "layers": 1, "heads": 16}
    text = {"width": 2048, "ff_width": 8192, "layers": 1, "vocab": 65037, "heads": 32}
    cost = Cost({"vision": vision, "decoder": text, "latents": 64}, 1, 2, True)
    tensors = [(f"v.blk.0.attn_{n}.weight", "Q6_K", (1024, 1024), 860160) for n in ("q", "k", "v", "out")]
    tensors += [(f"v.blk.0.ffn_{n}.weight", "Q6_K", (4096, 1024), 3440640) for n in ("up", "down")]
    tensors += [(f"blk.0.attn_{n}.weight", "Q4_K", (2048, 2048), 2359296) for n in ("q", "k", "v", "output")]
    tensors += [(f"blk.0.ffn_{n}.weight", "Q4_K", (8192, 2048), 9437184) for n in ("up", "down")]
    tensors += [("token_embd.weight", "Q6_K", (65037, 2048), 109262160), ("blk.0.attn_q.bias", "F32", (2048,), 8192)]
    return predict.Work(cost, tensors, 74)


def amounts(phase: str, kernels: predict_kernels.Kernels = PLAIN) -> dict[tuple[str, str], float]:
    """Of the parts of a phase."""
    found: dict[tuple[str, str], float] = {}
    for part in work().parts(phase, kernels):
        found[part.kind, part.what] = found.get((part.kind, part.what), 0.0) + part.amount
    return found


def test_parts_of_encode() -> None:
    found = amounts("encode")
    assert found["many", "I8"] == 257 * (4 * 1024**2 + 2 * 1024 * 4096) + 257 * 257 * 1024
    assert found["float32", "values"] == 257 * 257 * 1024
    # Patches; the folded resampler, as Cost counts it.
    patches = 256 * 3 * 14 * 14 * 1024
    resampler = 2 * 257 * 1024 * 2048 + 2 * 64 * (257 + 64) * 2048 + 64 * 2048 * 2048
    assert found["float32", "resampler, patches"] == patches + resampler
    assert found["elements", ""] == 257 * (7 * 1024 + 2 * 4096 + 16 * 257)
    assert sum(v for (kind, _), v in found.items() if kind != "elements") == work().cost.encode_macs()


def test_without_i8_the_tower_keeps_its_type() -> None:
    found = amounts("encode", replace(PLAIN, i8=False))
    assert found["many", "Q6_K"] == 257 * (4 * 1024**2 + 2 * 1024 * 4096) and ("many", "I8") not in found


def test_parts_of_prefill_and_decode() -> None:
    block = 4 * 2048**2 + 2 * 2048 * 8192
    found = amounts("prefill")
    assert found["many", "Q4_K"] == 74 * block and found["one", "Q6_K"] == 109262160
    assert found["float32", "attention"] == 74 * 75 * 2048
    each = 8 * 2048 + 3 * 8192
    assert found["elements", ""] == 74 * (each + 32 * 37.5)
    found = amounts("decode")
    assert found["one", "Q4_K"] == 4 * 2359296 + 2 * 9437184 and found["one", "Q6_K"] == 109262160
    assert found["cache", "keys, values"] == 2 * 2048 * 2 * 90
    assert found["elements", ""] == each + 32 * 90


def test_times_are_amounts_over_rates() -> None:
    machine = replace(predict.Machine.of(ROOF, "avx512vnni"), kernels=replace(PLAIN, step_s=0.001))
    found = predict.predict(work(), machine)
    many, one, elements = amounts("prefill"), amounts("decode"), 10.0
    prefill = many["many", "Q4_K"] / (500e9 * 0.25) + many["one", "Q6_K"] / (40e9 * 0.8)
    prefill += many["float32", "attention"] / (100e9 * 0.5) + many["elements", ""] * elements / 100e9
    assert math.isclose(found["prefill"]["ms"], 1e3 * prefill)
    step = one["one", "Q4_K"] / (40e9 * 0.5) + one["one", "Q6_K"] / (40e9 * 0.8) + 0.001
    step += one["cache", "keys, values"] / 40e9 + one["elements", ""] * elements / 100e9
    assert math.isclose(found["decode"]["ms"], 31e3 * step)
    assert math.isclose(found["decode"]["tokens_per_s"], 1 / step)
    parts = sum(found[phase]["ms"] for phase in ("encode", "prefill", "decode"))
    assert math.isclose(found["caption"]["ms"], parts + predict_kernels.HOST_MS)
    for phase in ("encode", "prefill", "caption"):
        assert math.isclose(sum(found[phase]["shares"].values()), 1)
    assert math.isclose(sum(found["decode"]["shares"].values()), 1 - 0.001 / step)
    # Twice as fast a memory halves what waits for it, and nothing else.
    faster = predict.predict(work(), replace(machine, read=80e9))
    assert faster["encode"] == found["encode"] and faster["decode"]["ms"] < 0.75 * found["decode"]["ms"]


def test_predicted_over_measured() -> None:
    machine = predict.Machine.of(ROOF, "avx512vnni")
    expected = predict.predict(work(), machine)
    measured = {"encode": {"ms": {"median": expected["encode"]["ms"] * 2}}}
    measured["decode"] = {"tokens_per_s": {"median": expected["decode"]["tokens_per_s"] * 2}}
    report = {"roof": ROOF, "isa": "avx512vnni", "phases": measured}
    predict.compare(report, work())
    assert math.isclose(report["predicted"]["encode"]["of_measured"], 0.5)
    assert math.isclose(report["predicted"]["decode"]["of_measured"], 2)  # predicted time over measured time
    assert "of_measured" not in report["predicted"]["prefill"]
    text = predict.table(report["predicted"])
    assert "predicted / measured 0.50" in text and "predicted / measured 2.00" in text and "many I8" in text


def test_every_type_of_a_file_has_its_figures() -> None:
    for kernels in predict_kernels.KERNELS.values():
        for dtype in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL"):
            assert 0 < kernels.many_of(dtype) <= 1.05 and 0 < kernels.one_of(dtype) <= 1.05
        assert ("I8" in kernels.many) == kernels.i8


def test_what_the_model_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(predict.NotModelled, match="mmx"):
        predict.Machine.of(ROOF, "mmx")
    with pytest.raises(InvalidRequest, match="int8_macs_per_s: expected a rate above 0, got 0"):
        predict.Machine.of(ROOF | {"int8_macs_per_s": 0.0}, "avx2")
    work = predict.Work.of(NANO)
    assert work.prompt == 64 + predict.TEXT_TOKENS
    floats = [(name, "F32" if dtype != "F32" else dtype, *rest) for name, dtype, *rest in work.tensors]
    assert all(p.kind != "many" for p in replace(work, tensors=floats)._products("blk.", 2, False))


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    rates = ["--bandwidth", "40", "--int8", "500", "--float32", "100"]
    words = ["bench", "-m", NANO, "--predict", *rates, "--for-isa", "avx2", "--prompt-tokens", "80", "--tokens", "16"]
    assert cli.run([*words, "-f", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["roof"] == ROOF and found["isa"] == "avx2" and (found["prompt"], found["tokens"]) == (80, 16)
    expected = predict.predict(predict.Work.of(NANO, 80, 16), predict.Machine.of(ROOF, "avx2"))
    assert found["predicted"] == json.loads(json.dumps(expected))
    assert cli.run(words) == 0
    text = capsys.readouterr().out
    assert "avx2: reads GB/s, int8 and float32 GMAC/s: 40.0, 500.0, 100.0; a prompt of 80, 16 tokens" in text
    assert "caption" in text and "tokens/s" in text
    for wrong, said in ((["--bandwidth", "0"], "bandwidth"), (["--for-isa", "mmx", *rates], "mmx")):
        assert cli.run(["bench", "-m", NANO, "--predict", *wrong]) == 2
        assert said in capsys.readouterr().err
    assert cli.run(["bench", "-m", NANO, "--int8", "5"]) == 2
    assert "--int8 goes with --predict" in capsys.readouterr().err


def test_rates_that_are_not_given_are_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "PROBE_BYTES", 4 << 20)
    words = ["bench", "-m", NANO, "--predict", "--bandwidth", "40", "-t", "1", "--rounds", "1", "-f", "json"]
    if _core.isa() not in predict_kernels.KERNELS:
        assert cli.run(words) == 2
        return
    assert cli.run(words) == 0
    roof = json.loads(capsys.readouterr().out)["roof"]
    assert roof["read_bytes_per_s"] == 40e9 and roof["int8_macs_per_s"] > 1e6 and roof["float32_macs_per_s"] > 1e6


def test_report_has_it_beside_what_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "PROBE_BYTES", 4 << 20)
    phases = "encode,prefill,decode,roof"
    words = ["bench", "-t", "1", "--rounds", "1", "--tokens", "4", "--phases", phases, "-f", "json", "-m"]
    assert cli.run([*words, NANO]) == 0
    report = json.loads(capsys.readouterr().out)
    if report["isa"] in predict_kernels.KERNELS:
        for phase in ("encode", "prefill"):
            entry, measured = report["predicted"][phase], report["phases"][phase]["ms"]["median"]
            assert math.isclose(entry["of_measured"], entry["ms"] / measured)
        assert "predicted / measured" in speed.table(report)
    assert cli.run([*words, str(tiny_file())]) == 0  # whatever parts that model has
