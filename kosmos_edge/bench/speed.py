"""The speed of a model on this machine: phases in rounds, medians, and how near they come to what it can do.

A figure is the median of the rounds; the phases take turns in every round. Roofs are measured with the same threads
and instruction set (csrc/cpu/probe.h). The report is a dict for JSON; `table` makes text of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.bench import loading as bench_load
from kosmos_edge.bench import predict
from kosmos_edge.bench.cost import Cost
from kosmos_edge.bench.workload import Sample, Work, can_batch
from kosmos_edge.errors import InvalidRequest

PHASES = ("encode", "prefill", "decode", "caption", "folder", "drafts", "load", "roof", "hash")
BATCHES = (1, 4, 8, 16)
DRAFT_PICTURES = 8
PROBE_BYTES = 512 << 20


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, extremes, and half the distance between the quartiles over the median ("spread")."""
    middle = statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (middle,) * 3
    return {"median": middle, "min": min(values), "max": max(values), "spread": (high - low) / 2 / middle}


def run(
    path: str,
    threads: int,
    *,
    device: str = "auto",
    kv_type: str = "f16",
    rounds: int = 5,
    tokens: int = 32,
    image: str | None = None,
    phases: Iterable[str] = PHASES,
    batches: Sequence[int] = BATCHES,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The report on one model file. Raises InvalidRequest for options out of range, and what loading raises."""
    wanted = set(phases)
    if unknown := wanted - set(PHASES):
        raise InvalidRequest(f"phases: unknown {', '.join(sorted(unknown))}; expected some of {', '.join(PHASES)}")
    if not 1 <= rounds <= 1000:
        raise InvalidRequest(f"rounds: expected 1..1000, got {rounds}")
    report: dict[str, Any] = {}
    if "load" in wanted:  # before this process has the file mapped
        log("loading, cold and warm")
        report["load"] = {
            "cold": bench_load.measure_cold(path, threads),
            "warm": [bench_load.load_in_child(path, threads) for _ in range(min(rounds, 3))],
        }
    # Made-up weights and pictures give answers that repeat themselves: drafts would measure that.
    engine = _core.Engine(path, device=device, threads=threads, kv_type=kv_type, drafts="off")
    work = Work(engine, image, tokens)
    cost = Cost.of(path, kv_type)
    report = _facts(engine, path, rounds, tokens, image) | report
    report["phases"] = _phases(work, wanted, rounds, batches, log)
    report["memory"] = {
        "file": Path(path).stat().st_size,
        "peak_resident": bench_load.peak_resident(),
        "kv_token_bytes": engine.kv_position_bytes,
        **bench_load.memory_now(),
    }
    report["one_row"] = engine.kernel_choices  # what decoding chose on this model
    if "roof" in wanted:  # after measuring memory: its buffer is not the model's
        log("measuring the machine")
        report["roof"] = measure_roof(engine.isa, engine.threads, rounds)
    if "load" in report:
        report["load"] = _load_summary(report["load"])
    if "hash" in wanted:
        report["logits_sha256"] = hashlib.sha256(work.logits()).hexdigest()
    rate(report, cost)
    if "roof" in report and {"prefill"} & set(report["phases"]):
        prompt = int(report["phases"]["prefill"]["tokens"])
        with contextlib.suppress(predict.NotModelled):  # of this model, or on this instruction set
            predict.compare(report, predict.Work.of(path, prompt, tokens, kv_type))
    return report


def _facts(engine: _core.Engine, path: str, rounds: int, tokens: int, image: str | None) -> dict[str, Any]:
    from kosmos_edge import __version__
    from kosmos_edge.machine import cpu_name

    return {
        "version": __version__,
        "model": str(engine.metadata.get("general.name") or Path(path).stem),
        "file": Path(path).name,
        "device": engine.device,
        "isa": engine.isa,
        "threads": engine.threads,
        "kv_type": engine.kv_type,
        "cpu": cpu_name(),
        "rounds": rounds,
        "tokens": tokens,
        "image": image or "synthetic",
        "batched": can_batch(),
    }


def measure_roof(isa: str, threads: int, rounds: int) -> dict[str, float]:
    """Medians of what this machine reads and multiplies per second."""
    return {
        "read_bytes_per_s": statistics.median(_core.probe("read", isa, threads, rounds, PROBE_BYTES)),
        "int8_macs_per_s": statistics.median(_core.probe("int8", isa, threads, rounds)),
        "float32_macs_per_s": statistics.median(_core.probe("float32", isa, threads, rounds)),
    }


def _phases(
    work: Work, wanted: set[str], rounds: int, batches: Sequence[int], log: Callable[[str], None]
) -> dict[str, Any]:
    measures: dict[str, Callable[[], Sample]] = {}
    if "encode" in wanted:
        measures["encode"] = lambda: work.encode()[0]
    if "prefill" in wanted:
        measures["prefill"] = lambda: work.answer()[0]
    if "decode" in wanted:
        measures["decode"] = work.decode
    if "caption" in wanted:
        measures["caption"] = work.caption
    samples: dict[str, list[Sample]] = {name: [] for name in measures}
    for number in range(rounds + 1):
        for name, measure in measures.items():
            sample = measure()
            if number:  # the first round warms up
                samples[name].append(sample)
        log(f"round {number} of {rounds}" if number else "warming up")
    out = {name: phase(name, found) for name, found in samples.items()}
    if "folder" in wanted:
        out["folder"] = {}
        for batch in batches:
            log(f"folder, {batch} at a time")
            found = [work.folder(batch, max(2 * batch, 4)) for _ in range(max(1, min(rounds, 3)))]
            rates = summary([s.images / s.seconds for s in found])
            out["folder"][str(batch)] = {"images_per_s": rates, "images": found[0].images, **bench_load.memory_now()}
    if "drafts" in wanted:
        log("passes of a folder with drafts")
        out["drafts"] = work.drafts(DRAFT_PICTURES)
    return out


def phase(name: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """Milliseconds and rates of one phase."""
    out: dict[str, Any] = {"ms": summary([s.ms for s in samples])}
    if any(s.tokens for s in samples):
        out["tokens"] = statistics.median(s.tokens for s in samples)
    if name in ("prefill", "decode"):
        out["tokens_per_s"] = summary([s.tokens_per_s for s in samples])
    return out


def _load_summary(load: dict[str, Any]) -> dict[str, Any]:
    warm = load["warm"]
    return {
        "cold": load["cold"],
        "warm_ms": statistics.median(w["load_ms"] for w in warm),
        "warm_first_token_ms": statistics.median(w["first_token_ms"] for w in warm),
        "peak_resident": max(w["peak_resident"] for w in warm),
    }


def rate(report: dict[str, Any], cost: Cost) -> None:
    """Add what the phases achieve per second, and which part of the roof that is."""
    phases, roof = report["phases"], report.get("roof")
    peak = roof and roof["int8_macs_per_s" if cost.quantized else "float32_macs_per_s"]
    work = {"encode": cost.encode_macs()}
    if "prefill" in phases:
        work["prefill"] = cost.prefill_macs(int(phases["prefill"]["tokens"]))
    for name, macs in work.items():
        if name in phases:
            per_s = macs / phases[name]["ms"]["median"] * 1e3
            phases[name] |= {"macs": macs, "macs_per_s": per_s, "of_roof": per_s / peak if peak else None}
    if "decode" in phases:
        before = phases["prefill"]["tokens"] if "prefill" in phases else 0
        answer = report["tokens"] / 2
        size = cost.decode_bytes(before + answer, answer)
        per_s = size * phases["decode"]["tokens_per_s"]["median"]
        of_roof = per_s / roof["read_bytes_per_s"] if roof else None
        phases["decode"] |= {"bytes_per_token": size, "bytes_per_s": per_s, "of_roof": of_roof}


# --------------------------------------------------------------------------------------------------------------- text


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['model']} ({report['file']}), kosmos-edge {report['version']}",
        f"{report['cpu']}; {report['device']}, {report['isa']}, {report['threads']} threads; medians of "
        f"{report['rounds']} rounds (spread: half the distance of the quartiles)",
        "",
    ]
    phases = report["phases"]
    for name in ("encode", "prefill", "decode", "caption"):
        if name in phases:
            lines.append(_line(name, phases[name]))
    for batch, entry in phases.get("folder", {}).items():
        rates = entry["images_per_s"]
        lines.append(f"{'batch ' + batch:10}{rates['median']:10.2f} images/s  +-{100 * rates['spread']:.0f} %")
    if "folder" in phases and not report["batched"]:
        lines.append("          (this build answers one image at a time)")
    if "drafts" in phases:
        drafts = phases["drafts"]
        lines.append(
            f"{'drafts':10}{drafts['tokens_per_pass']:10.2f} tokens a pass of the decoder, one picture at a time "
            f"({drafts['accepted']} of {drafts['drafted']} drafts came)"
        )
    if "load" in report:
        load, cold = report["load"], report["load"]["cold"]
        lines.append(f"{'load':10}{load['warm_ms']:10.0f} ms warm, {load['warm_first_token_ms']:.0f} ms to a token")
        words = cold.get("skipped") or f"{cold['load_ms']:.0f} ms ({cold['how']})"
        lines.append(f"{'':10}{'':10} cold: {words}")
    memory = report["memory"]
    lines.append(
        f"{'memory':10}{memory['peak_resident'] / 1e6:10.0f} MB peak, {memory.get('RssAnon', 0) / 1e6:.0f} MB of it "
        f"anonymous; the model file has {memory['file'] / 1e6:.0f} MB, keys and values of a token "
        f"{memory['kv_token_bytes'] / 1e3:.0f} kB ({report['kv_type']})"
    )
    if "roof" in report:
        roof = report["roof"]
        lines.append(
            f"{'roof':10}{roof['read_bytes_per_s'] / 1e9:10.1f} GB/s read, {roof['int8_macs_per_s'] / 1e9:.0f} GMAC/s "
            f"int8, {roof['float32_macs_per_s'] / 1e9:.0f} GMAC/s float32"
        )
    if "predicted" in report:
        lines += ["", "The cost model, from that roof and the file's shapes:", predict.table(report["predicted"])]
    if "logits_sha256" in report:
        lines.append(f"{'logits':10}  sha256 {report['logits_sha256'][:16]}...")
    return "\n".join(lines)


def _line(name: str, entry: dict[str, Any]) -> str:
    ms = entry["ms"]
    text = f"{name:10}{ms['median']:10.1f} ms  +-{100 * ms['spread']:.0f} %"
    if "tokens" in entry:
        text += f"  {entry['tokens']:.0f} tokens"
    if "tokens_per_s" in entry:
        text += f"  {entry['tokens_per_s']['median']:.1f} tokens/s"
    if "macs_per_s" in entry:
        text += f"  {entry['macs_per_s'] / 1e9:.0f} GMAC/s"
    if "bytes_per_s" in entry:
        text += f"  {entry['bytes_per_s'] / 1e9:.1f} GB/s"
    return text + (f"  {100 * entry['of_roof']:.0f} % of the roof" if entry.get("of_roof") else "")
