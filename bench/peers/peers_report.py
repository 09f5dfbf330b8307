"""What the measurements of peers.py say: medians, ratios of ours to each peer, composed captions, tables.

A measurement is a dict {"round", "pass", "peer", "tool", "bits", "phase", "values"}, a roof {"roof": {...}}, a peer
that is missing {"peer", "missing": why}.
"""

import statistics
from collections.abc import Iterable, Sequence

import peers_stats
from peers_workers import ANSWER, PROMPT

UNITS = {"encode": "ms", "prefill": "ms", "decode": "tokens/s", "caption": "ms"}
HIGHER_IS_BETTER = {"decode", "photos:64"}
LABELS = {
    "encode": "encode: one picture of 224 x 224",
    "prefill": f"prefill: {PROMPT} tokens",
    "decode": f"decode: {ANSWER - 1} tokens after the first",
    "caption": f"caption: photo to {ANSWER} tokens",
}


def select(found: Iterable[dict], **wanted: object) -> list[dict]:
    """Measurements with these fields."""
    return [m for m in found if all(m.get(name) == value for name, value in wanted.items())]


def values_of(found: Iterable[dict]) -> list[float]:
    """All values of some measurements."""
    return [value for m in found for value in m["values"]]


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles over the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def faster(phase: str, ours: float, theirs: float) -> float:
    """How many times faster ours is."""
    return ours / theirs if phase in HIGHER_IS_BETTER else theirs / ours


def paired_ratios(found: list[dict], phase: str, peer: str) -> list[float]:
    """The ratio within each pass of each round."""
    ratios = []
    for m in select(found, phase=phase, peer=peer):
        ours = values_of(select(found, phase=phase, tool="ours", round=m["round"], **{"pass": m["pass"]}))
        if ours:
            ratios.append(faster(phase, statistics.median(ours), statistics.median(m["values"])))
    return ratios


def paired_ratio(found: list[dict], phase: str, peer: str) -> float:
    """Their median."""
    return statistics.median(paired_ratios(found, phase, peer))


def put_ratio(entry: dict, name: str, ratios: Sequence[float], at: str = "ratios") -> None:
    """The median of some ratios under entry[at], what peers_stats says of them under "compared"."""
    if ratios:
        said = peers_stats.compared(ratios)
        entry[at][name], entry["compared"][name] = said["ratio"], said


def phase_entry(found: list[dict], phase: str, roof: float | None) -> dict:
    """Ours, the peers and the roof of one measured phase."""
    ours = values_of(select(found, phase=phase, tool="ours"))
    entry: dict = {"unit": UNITS[phase], "ours": statistics.median(ours), "ours_spread": spread(ours), "peers": {}}
    entry |= {"roof": roof, "ratios": {}, "spreads": {}, "bits": {}, "compared": {}}
    for m in found:
        if m.get("phase") == phase and m["tool"] != "ours" and m["peer"] not in entry["peers"]:
            values = values_of(select(found, phase=phase, peer=m["peer"]))
            entry["peers"][m["peer"]] = statistics.median(values)
            entry["spreads"][m["peer"]] = spread(values)
            put_ratio(entry, m["peer"], paired_ratios(found, phase, m["peer"]))
            entry["bits"][m["peer"]] = m["bits"]
    return entry


def best(entry: dict, names: Iterable[str]) -> str | None:
    """The peer that ours is least ahead of."""
    return min(names, key=lambda name: entry["ratios"][name], default=None)


def composed(encode: float, prefill: float, decode: float) -> float:
    """Milliseconds of a caption from its phases (ms, ms, tokens/s)."""
    return encode + prefill + 1e3 * (ANSWER - 1) / decode


def composed_ratios(found: list[dict], parts: dict[str, str]) -> list[float]:
    """Of each round: the caption that these programs' phases make ({phase: peer}) over ours of that round."""
    ratios = []
    for number in dict.fromkeys(m["round"] for m in select(found, phase="caption", tool="ours")):
        ours = values_of(select(found, phase="caption", tool="ours", round=number))
        times = [values_of(select(found, phase=phase, peer=peer, round=number)) for phase, peer in parts.items()]
        if all(times):
            ratios.append(composed(*map(statistics.median, times)) / statistics.median(ours))
    return ratios


def caption_entry(found: list[dict], phases: dict, roof: float | None) -> dict:
    """The caption of every single tool, of the best two tools, and of the best of every phase.

    Tools whose own end-to-end call was measured (transformers int8) stand with that; the others are composed of
    their phases, which leaves out what joins them.
    """
    ours = values_of(select(found, phase="caption", tool="ours"))
    entry: dict = {"unit": "ms", "ours": statistics.median(ours), "ours_spread": spread(ours), "peers": {}}
    entry |= {"roof": roof, "ratios": {}, "spreads": {}, "bits": {}, "composed": {}, "composed_ratios": {}}
    entry["compared"] = {}
    encode, prefill, decode = (phases.get(p, {"peers": {}, "ratios": {}, "bits": {}}) for p in UNITS if p != "caption")
    tools = {m["peer"]: m["tool"] for m in found if "tool" in m}
    measured = {m["peer"] for m in found if m.get("phase") == "caption" and m["tool"] != "ours"}

    def put(label: str, tower: str, reader: str, writer: str, at: str = "peers") -> None:
        """A caption composed of phases."""
        ratios = composed_ratios(found, {"encode": tower, "prefill": reader, "decode": writer})
        if ratios:
            total = composed(encode["peers"][tower], prefill["peers"][reader], decode["peers"][writer])
            entry[at][label] = total
            put_ratio(entry, label, ratios, {"peers": "ratios", "composed": "composed_ratios"}[at])

    for name in prefill["peers"]:
        if name in measured:
            values = values_of(select(found, phase="caption", peer=name))
            entry["peers"][name] = statistics.median(values)
            put_ratio(entry, name, paired_ratios(found, "caption", name))
            entry["spreads"][name], entry["bits"][name] = spread(values), prefill["bits"][name]
        else:
            own = [e for e in encode["peers"] if tools[e] == tools[name]]
            tower = name if name in own else min(own, key=encode["peers"].get, default=None)
            if tower is None or name not in decode["peers"]:
                continue
            label = name if tower == name else f"{name} + {tower}"
            put(label, tower, name, name)
            entry["bits"][label] = " + ".join(dict.fromkeys((prefill["bits"][name], encode["bits"][tower])))
    both = [n for n in prefill["peers"] if n in decode["peers"]]
    if encode["peers"] and both:
        tower = min(encode["peers"], key=encode["peers"].get)
        second = min(both, key=lambda n: composed(0, prefill["peers"][n], decode["peers"][n]))
        put(f"best two tools: {tower}, {second}", tower, second, second, "composed")
        reader = min(prefill["peers"], key=prefill["peers"].get)
        writer = max(decode["peers"], key=decode["peers"].get)
        put("the best of every phase, no tool", tower, reader, writer, "composed")
    return entry


def folder_entry(found: list[dict]) -> dict | None:
    """Images per second of ours one at a time and eight at a time."""
    pairs = []
    for m in select(found, phase="folder:8", tool="ours"):
        one = values_of(select(found, phase="folder:1", tool="ours", round=m["round"]))
        if one:
            pairs.append(statistics.median(m["values"]) / statistics.median(one))
    if not pairs:
        return None
    rates = {b: statistics.median(values_of(select(found, phase=f"folder:{b}", tool="ours"))) for b in (1, 8)}
    return {
        "unit": "images/s",
        "ours": rates[8],
        "ours_batch_1": rates[1],
        "ratio": statistics.median(pairs),
        "peers": {},
        "roof": None,
    }


def roofs(found: list[dict], cost: object, prompt: int) -> dict:
    """The least time of every phase: all products at the int8 peak, all weights at the speed of memory."""
    probes = [m["roof"] for m in found if "roof" in m]
    if not probes:
        return {}
    middle = {name: statistics.median(p[name] for p in probes) for name in probes[0]}
    encode = 1e3 * cost.encode_macs() / middle["int8_macs_per_s"]
    prefill = 1e3 * cost.prefill_macs(prompt) / middle["int8_macs_per_s"]
    decode = middle["read_bytes_per_s"] / cost.decode_bytes(prompt + ANSWER / 2)
    return middle | {
        "encode": encode,
        "prefill": prefill,
        "decode": decode,
        "caption": composed(encode, prefill, decode),
    }


def report(found: list[dict], machine: dict, cost: object, prompt: int = PROMPT) -> dict:
    """The whole report; "ratio_to_best_peer" is above 1 where ours is faster."""
    roof = roofs(found, cost, prompt)
    phases = {
        phase: phase_entry(found, phase, roof.get(phase))
        for phase in ("encode", "prefill", "decode")
        if select(found, phase=phase, tool="ours")
    }
    if select(found, phase="caption", tool="ours"):
        phases["caption"] = caption_entry(found, phases, roof.get("caption"))
    ratios: dict = {name: None for name in ("encode", "prefill", "decode", "caption", "folder_batch8_over_1")}
    best_peers, compared = {}, {}
    for name, entry in phases.items():
        top = best(entry, entry["ratios"])
        if top:
            ratios[name], best_peers[name], compared[name] = entry["ratios"][top], top, entry["compared"][top]
    if folder := folder_entry(found):
        phases["folder"], ratios["folder_batch8_over_1"] = folder, folder["ratio"]
    missing = {m["peer"]: m["missing"] for m in found if "missing" in m}
    measured = {m[key] for m in found if "phase" in m for key in ("peer", "tool")}
    held = {m["tool"]: m["about"]["held"] for m in found if "held" in m.get("about", {})}
    rounds = len({m["round"] for m in found if "round" in m})
    facts = {k: roof[k] for k in ("read_bytes_per_s", "int8_macs_per_s", "float32_macs_per_s") if k in roof}
    versions = {m["tool"]: m["about"].get("version") for m in found if m.get("about", {}).get("version")}
    return {
        "machine": machine | facts | {"rounds": rounds, "versions": versions},
        "phases": phases,
        "ratio_to_best_peer": ratios,
        "best_peer": best_peers,
        "compared_to_best_peer": compared,
        "held": held,
        "missing_peers": {name: why for name, why in missing.items() if name not in measured},
    }


# ------------------------------------------------------------------------------------------------------------- tables


def table(head: list[str], rows: list[list[str]], markdown: bool) -> str:
    """Rows as markdown, or in columns."""
    if markdown:
        return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows]) + "\n"
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *rows]]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def number(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def said(entry: dict, peer: str) -> str:
    """How many times faster ours is, with its interval."""
    return peers_stats.words(entry["compared"][peer]) if peer in entry["compared"] else ""


def tables(result: dict, markdown: bool = False) -> str:
    """All phases: every peer with its bits, its figure, and how many times faster ours is."""
    rows = []
    for name in UNITS:
        if name not in result["phases"]:
            continue
        entry = result["phases"][name]
        unit = entry["unit"]
        rows.append([f"**{name}**" if markdown else name, f"roof ({unit})", "", number(entry["roof"]), "", ""])
        ratio = entry["roof"] and faster(name, entry["ours"], entry["roof"])
        part = f"{100 * ratio:.0f} % of the roof" if ratio else ""
        rows.append(
            ["", "kosmos-edge q4_k_m", "4-6 / 8", number(entry["ours"]), f"{100 * entry['ours_spread']:.0f} %", part]
        )
        for peer in sorted(entry["ratios"], key=entry["ratios"].get):
            cells = [
                number(entry["peers"][peer]),
                f"{100 * entry['spreads'][peer]:.0f} %" if peer in entry["spreads"] else "",
            ]
            rows.append(["", peer, entry["bits"].get(peer, ""), *cells, said(entry, peer)])
        for peer, ms in entry.get("composed", {}).items():
            rows.append(["", peer, "", number(ms), "", said(entry, peer)])
    if folder := result["phases"].get("folder"):
        name = "**folder**" if markdown else "folder"
        rows.append([name, "kosmos-edge, 1 at a time (images/s)", "4-6 / 8", number(folder["ours_batch_1"]), "", ""])
        rows.append(
            [
                "",
                "kosmos-edge, 8 at a time (images/s)",
                "4-6 / 8",
                number(folder["ours"]),
                "",
                f"{folder['ratio']:.2f} of 1 at a time",
            ]
        )
    text = table(
        ["phase", "program", "bits weights / activations", "median", "spread", "ours is faster by"], rows, markdown
    )
    for name, why in result["missing_peers"].items():
        text += f"\nNot measured: {name}: {why}"
    return text + ("\n" if result["missing_peers"] else "")
