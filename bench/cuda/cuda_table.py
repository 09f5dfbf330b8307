"""One table of what bench/cuda.sh found, from the files in its folder:

    python bench/cuda/cuda_table.py DIR

card.json (bench/cuda/cuda_card.py), steps.jsonl ({"step", "ok", "said"}, ok null: left out), checks.jsonl
(cuda_checks.py, cuda_memory.py), measured-cuda.jsonl (cuda_peers.py). What is missing is said to be
missing. NEVER RUN on figures of a card so far; tests/bench/test_bench_cuda.py has made-up ones.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "peers"))

import peers_report
from peers_run import finished

OURS = "ours"
MARK = {True: "yes", False: "**NO**", None: "left out"}


@dataclass(frozen=True)
class Phase:
    """A row of the measurements: its name in the file, for people, its unit, and what issue 6 asks on an H100."""

    name: str
    label: str
    unit: str
    asked: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value is what is asked."""
        assert self.asked is not None
        return value >= self.asked if self.name in peers_report.HIGHER_IS_BETTER else value <= self.asked


PHASES = (
    Phase("encode", "picture of 224 x 224 to image tokens", "ms"),
    Phase("prefill", "prompt of 74 tokens", "ms"),
    Phase("first", "pixels to the first token", "ms", 3.0),
    Phase("decode", "decoding, batch 1", "tokens/s", 1500.0),
    Phase("caption", "JPEG file to 32 tokens", "ms"),
    Phase("photos:64", "photos, batch 64, 40 tokens each", "photos/s", 300.0),
)
RATIOS = {"llama.cpp language Q4_K_M": 1.3, "transformers bfloat16": 8.0}  # asked of decoding
ASKED_ON = "H100"


def read(path: Path) -> list[dict]:
    """Lines of JSON; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table in markdown."""
    head = list(head)
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def bound(name: str, found: list[dict], ratio: float = 1.0) -> float | None:
    """The most tokens per second that the card's memory allows: bandwidth over the bytes that a token reads."""
    roofs = [m["roof"]["bandwidth"] for m in found if m.get("roof")]
    read_per_token = [m["decode_bytes"] for m in found if "decode_bytes" in m]
    if name != "decode" or not roofs or not read_per_token:
        return None
    return ratio * roofs[-1] / read_per_token[-1]


def measurements(found: list[dict], on_asked: bool) -> Iterator[list[str]]:
    """Rows: phase, ours, bound, asked, then the peers in words."""
    for phase in PHASES:
        of_phase = peers_report.select(found, phase=phase.name)
        ours = peers_report.values_of(peers_report.select(of_phase, tool=OURS))
        if not ours:
            yield [phase.label, "not measured", "", "", ""]
            continue
        value = statistics.median(ours)
        said = f"{figure(value)} {phase.unit} (±{peers_report.spread(ours):.0%})"
        roof = bound(phase.name, found)
        asked = ""
        if phase.asked is not None:
            sign = ">=" if phase.name in peers_report.HIGHER_IS_BETTER else "<="
            asked = f"{sign} {figure(phase.asked)} on an {ASKED_ON}"
            if on_asked:
                asked += f": {MARK[phase.holds(value)]}"
        peers = []
        for name in dict.fromkeys(m["peer"] for m in of_phase if m["tool"] != OURS):
            theirs = statistics.median(peers_report.values_of(peers_report.select(of_phase, peer=name)))
            ratio = peers_report.paired_ratio(found, phase.name, name)
            text = f"{name} {figure(theirs)}: {ratio:.2f}x"
            if phase.name == "decode" and name in RATIOS:
                text += f" (asked {RATIOS[name]}x: {MARK[ratio >= RATIOS[name]]})"
            peers.append(text)
        near = f"{figure(roof)} {phase.unit}, {value / roof:.0%} of it" if roof else ""
        yield [phase.label, said, near, asked, "; ".join(peers)]


def missing(found: list[dict]) -> list[str]:
    """Peers that could not be had or run, each with the reason, once."""
    return list(dict.fromkeys(f"{m['peer']}: {m['missing']}" for m in found if "missing" in m))


def page(folder: Path) -> tuple[list[str], bool]:
    """Lines, and whether nothing failed of what was done."""
    steps, checks = read(folder / "steps.jsonl"), read(folder / "checks.jsonl")
    found, cards = finished(read(folder / "measured-cuda.jsonl")), read(folder / "card.json")
    lines, right = [], True
    if cards:
        card = cards[-1]
        lines.append(
            f"{card['card']}, compute capability {card['capability']}, {card['memory'] / 2**30:.0f} GiB, "
            f"{card['bandwidth'] / 1e12:.2f} TB/s by its clock and bus, driver for {card['driver']}"
        )
    else:
        lines.append("no card was described")
    lines += ["", *table(["step", "passed", ""], ([s["step"], MARK[s["ok"]], s["said"]] for s in steps)), ""]
    rows = [[c["check"], c["said"], c["wanted"], MARK[c["holds"]] if c["wanted"] else ""] for c in checks]
    lines += [*table(["check", "found", "asked", "holds"], rows or [["none was done", "", "", ""]]), ""]
    on_asked = bool(cards) and ASKED_ON in cards[-1]["card"]
    models = [m["model"] for m in found if "model" in m]
    lines += [f"Model: {models[-1]}" if models else "No model was measured.", ""]
    lines += table(
        ["measured", "kosmos-edge", "bound by bandwidth", "asked", "peers: ours is"], measurements(found, on_asked)
    )
    lines += ["", *(f"Missing: {why}" for why in missing(found))]
    lines += [
        f"{m['peer']}: {m['about']['tokens of an answer']:.1f} tokens in an answer of the photos"
        for m in peers_report.select(found, phase="photos:64", tool=OURS)[-1:]
        if "tokens of an answer" in m.get("about", {})
    ]
    right = all(s["ok"] is not False for s in steps) and all(c["holds"] for c in checks)
    return lines, right


def main() -> int:
    """Command line; status 1 if a step failed or a check does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    lines, right = page(parser.parse_args().folder)
    print("\n".join(lines))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
