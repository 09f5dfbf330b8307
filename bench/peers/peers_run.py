"""Running the peers: what each program measures, how it is talked to, and what it answers.

A pass is ours and some peers, one at a time. Every figure of a pass is set against ours of the same pass, so that a
machine that grows slower or faster between passes changes no ratio. In peers.py a pass is one phase (peers_live.py).
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from peers_get import HERE, Unavailable, clean_environment
from peers_workers import ANSWER, PROMPT

REPEATS = {
    "encode": 3,
    "prefill": 3,
    "decode": 2,
    "caption": 2,
    "folder:1": 1,
    "folder:8": 1,
    "first": 5,
    "photos:64": 1,
}


@dataclass
class Peer:
    """A program with a model. bits: of weights and activations, in words."""

    name: str
    tool: str  # whose program it is
    bits: str
    phases: tuple[str, ...]
    command: list[str]
    style: str = "worker"  # how it is talked to: "worker" (peers_workers), "llama-bench", "batched-bench", "mtmd"
    slow: bool = False  # measured once a round
    times: int = 1  # as many repeats as usual
    environment: dict[str, str] = field(default_factory=dict)
    held: str = ""  # how it is known to be held to AVX2, in words


def environment(peer: Peer, threads: int) -> dict[str, str]:
    """Where the peer runs: the number of threads in OpenMP's terms too."""
    base = dict(os.environ) if peer.tool == "ours" else clean_environment()
    return base | {"OMP_NUM_THREADS": str(threads)} | peer.environment


def measure(peer: Peer, threads: int, phases: tuple[str, ...]) -> tuple[dict[str, list[float]], dict]:
    """-> (values of each phase, facts about the program). Raises Unavailable if it does not run."""
    command = [part.replace("{threads}", str(threads)) for part in peer.command]
    if peer.style == "llama-bench":
        return parse_llama_bench(_output(peer, command, threads, ""), set(phases) & {"prefill", "decode"})
    if peer.style == "batched-bench":
        return parse_batched_bench(_output(peer, command, threads, ""))
    if peer.style == "mtmd":
        lines = _output(peer, command, threads, f"1\n{REPEATS['encode'] * peer.times}\n").splitlines()
        return parse_mtmd(lines[-1]), {}
    talk = "".join(f"{phase} 1\n" for phase in phases if phase in ("encode", "prefill", "first"))  # warms up
    talk += "".join(f"{phase} {1 if peer.slow else repeats(peer, phase)}\n" for phase in phases)
    lines = [json.loads(line) for line in _output(peer, command, threads, talk).splitlines() if line.startswith("{")]
    asked = [line.split()[0] for line in talk.splitlines()]
    if len(lines) != len(asked) + 1:
        raise Unavailable(f"{peer.name}: {len(lines) - 1} answers to {len(asked)} questions")
    values = dict(zip(asked, (line["values"] for line in lines[1:]), strict=True))  # the last answer about a phase
    about = lines[0]["about"] | lines[-1].get("about", {})
    return values, about | {"load_s": lines[0]["load_s"], "peak_rss": lines[-1]["peak_rss"]}


def repeats(peer: Peer, phase: str) -> int:
    """How often a phase is measured in a row; whole folders no more often than usual."""
    return REPEATS[phase] * (1 if ":" in phase else peer.times)


def _output(peer: Peer, command: list[str], threads: int, talk: str) -> str:
    try:
        done = subprocess.run(
            command, input=talk, capture_output=True, text=True, env=environment(peer, threads), check=False
        )
    except OSError as error:
        raise Unavailable(f"{peer.name}: {error}") from None
    if done.returncode:
        words = " ".join(done.stderr.strip().splitlines()[-2:])
        raise Unavailable(f"{peer.name} ended with status {done.returncode}: {words[:300]}")
    return done.stdout


def parse_llama_bench(output: str, wanted: set[str]) -> tuple[dict[str, list[float]], dict]:
    """`llama-bench -o json`: prefill in milliseconds, decoding in tokens per second, one figure per repeat."""
    values: dict[str, list[float]] = {}
    about: dict = {}
    start = output.index("[")  # ik_llama.cpp prints other lines before it
    for entry in json.loads(output[start : output.rindex("]") + 1]):
        about = {"version": entry["build_commit"], "threads": entry["n_threads"]}
        if entry["n_prompt"] and not entry["n_gen"]:
            values["prefill"] = [ns / 1e6 for ns in entry["samples_ns"]]
        elif entry["n_gen"] and not entry["n_prompt"]:
            values["decode"] = list(entry["samples_ts"])
    if set(values) != wanted:
        raise Unavailable(f"llama-bench gave {sorted(values)}, wanted were {sorted(wanted)}")
    return values, about


def parse_mtmd(line: str) -> dict[str, list[float]]:
    """A line of mtmd_encode."""
    return {"encode": json.loads(line)["ms"]}


def parse_batched_bench(output: str) -> tuple[dict[str, list[float]], dict]:
    """`llama-batched-bench --output-format jsonl`: prompts and answers of B sequences -> sequences per second."""
    values: dict[str, list[float]] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            entry = json.loads(line)
            values.setdefault(f"photos:{entry['pl']}", []).append(entry["pl"] / entry["t"])
    if not values:
        raise Unavailable("llama-batched-bench gave no figures")
    return values, {}


def finished(lines: list[dict]) -> list[dict]:
    """Measurements of passes that came to their end; of one that was cut off and repeated, the repeated ones."""
    out: list[dict] = []
    open_pass: list[dict] = []
    for line in lines:
        if "round" not in line:
            out.append(line)
        elif line.get("begin"):
            open_pass = []
        elif line.get("end"):
            out += open_pass
            open_pass = []
        else:
            open_pass.append(line)
    return out


def llama_bench(binaries: Path, model: Path, *more: str, prompt: int = PROMPT) -> list[str]:
    """The command: a prompt as long as ours, as many steps as ours, on an empty context."""
    command = [str(binaries / "llama-bench"), "-m", str(model), "-p", str(prompt), "-n", str(ANSWER - 1)]
    return [*command, "-r", str(REPEATS["decode"]), "-t", "{threads}", "-o", "json", *more]


def worker(python: Path | str, kind: str, model: Path | str, *more: str) -> list[str]:
    """The command of a program of peers_workers.py."""
    return [str(python), str(HERE / "peers_workers.py"), kind, str(model), "{threads}", *more]


def ours(model: Path, words: int | None = None) -> Peer:
    """The engine of this checkout. words: ordinary tokens behind the picture (the worker's)."""
    phases = ("encode", "prefill", "decode", "caption", "folder:1", "folder:8")
    more = () if words is None else (str(words),)
    command = worker(sys.executable, "ours", model, *more)
    return Peer("kosmos-edge q4_k_m", "ours", "4-6 bit weights, int8 activations", phases, command)
