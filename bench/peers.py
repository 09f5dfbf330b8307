"""kosmos-edge beside its peers on the same work: KOSMOS-2's sizes, random weights, the same threads, taking turns.

    python bench/peers.py --work DIR --write docs/benchmarks.md   # from an empty folder: everything, and the page
    python bench/peers.py --work DIR                               # the same with a table on stdout
    python bench/peers.py --work DIR --threads 2 --format json     # 2 threads only, JSON
    python bench/peers.py --work DIR --avx2                        # everybody held to AVX2
    python bench/peers.py --work DIR --prepare                     # get, build and make only
    python bench/peers.py --work DIR --resume --seconds 90         # measure for 90 s, go on where it stopped
    python bench/peers.py --work DIR --report --write FILE         # measure nothing, the page of what is there

A round has a turn of each phase: encode, prefill, decode, caption, folder. In a turn every program that has the phase
is measured once or twice, A B C; the next round begins with another one, B C A. With --threads 1,2 (the default: 1, and
all cores) the rounds of each number of threads follow one another.

Needs the package with its test extra, a C++ compiler, 25 GB of disk and 16 GB of memory; what else it needs it brings
into DIR, also CMake and Ninja where they are not installed. The first run builds the peers (20 to 60 minutes on 2
cores) and makes models; they stay in DIR. Measuring takes about 2 minutes per round and number of threads on 2 cores;
--quick is two rounds without the slowest peers. What --seconds leaves to do ends with status 75: run it again with
--resume. The page's figures want an idle machine. A peer that cannot be had is reported with the reason.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE / "peers")]
sys.path.append(str(HERE.parent))  # behind an installed package

try:
    import kosmos_edge._native  # noqa: F401
except ImportError as missing:
    sys.exit(f"peers.py: {missing}")

import peers_get  # noqa: E402 (these want the path above)
import peers_held  # noqa: E402
import peers_live  # noqa: E402
import peers_models  # noqa: E402
import peers_page  # noqa: E402
import peers_report  # noqa: E402
import peers_run  # noqa: E402
from peers_get import Unavailable  # noqa: E402
from peers_run import Peer  # noqa: E402

NOT_DONE = 75
TOOLS = ("llama.cpp", "ik_llama.cpp", "onnxruntime", "torch-int8", "transformers")
SLOW = {"transformers bfloat16", "transformers float32"}
ROUNDS = 6
PHASES = ("encode", "prefill", "decode", "caption")


class Bench:
    """The work folder and what is wanted of it."""

    alone: tuple[str, ...] = ("folder:1", "folder:8")  # what is measured of ours in a pass without peers

    def __init__(self, arguments: argparse.Namespace, threads: int | None = None, avx2: bool = False) -> None:
        self.arguments, self.work = arguments, arguments.work
        self.threads, self.avx2 = threads or max(arguments.threads), avx2
        self.missing: dict[str, str] = {}
        self.environment = {"PEERS_CACHE": str(self.work)} | (peers_held.ENVIRONMENT if avx2 else {})
        self.log = self.work / f"measured-{self.threads}{'-avx2' if avx2 else ''}.jsonl"
        self.live = peers_live.Live(self.threads)

    # ---- preparing

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
        """A file of the work folder, made when it is not there."""
        path = self.work / name
        if not path.exists():
            print("making", name, file=sys.stderr, flush=True)
            make(path)
        return path

    def checkpoint(self) -> Path:
        """A checkpoint of full size in transformers' layout, random weights."""
        folder = self.work / "hf"
        if not (folder / "model.safetensors").exists():
            sys.path.insert(0, str(HERE))
            from full_size import make_own

            print("making hf (6.7 GB)", file=sys.stderr, flush=True)
            make_own(folder)
        return folder

    def our_model(self) -> Path:
        """The checkpoint as our default file."""
        if self.arguments.model:
            return self.arguments.model
        log = self.work / "convert.log"
        command = [sys.executable, "-m", "kosmos_edge.convert"]
        return self.made(
            "kosmos-2-q4_k_m.gguf",
            lambda path: peers_get.run([*command, self.checkpoint(), "--type", "q4_k_m", "-o", path], log),
        )

    def stand_in(self, name: str) -> Path:
        """One of peers_models' files."""
        write = next(write for known, _, write in peers_models.files() if known == name)
        return self.made(name, write)

    def passes(self) -> Iterator[tuple[str, list[Peer]]]:
        """The passes of a round: a phase, the peers that have it. What cannot be had is noted and left out."""
        found = [peer for name, make in self._makers().items() for peer in self._take(name, make)]
        if self.arguments.quick:
            found = [peer for peer in found if peer.name not in SLOW]
        for phase in PHASES:
            yield phase, [peer for peer in found if phase in peer.phases]
        yield "folder", []

    def _makers(self) -> dict[str, Callable[[], list[Peer]]]:
        return {
            "llama.cpp": self._llama,
            "ik_llama.cpp": self._ik,
            "onnxruntime": self._onnx,
            "torch-int8": lambda: self._torch(("torch-int8",)),
            "transformers": lambda: self._torch(("torch-bf16", "torch-fp32")),
        }

    def _take(self, name: str, make: Callable[[], list[Peer]]) -> list[Peer]:
        if name not in self.arguments.peers:
            return []
        try:
            peers = make()
            for peer in peers if self.avx2 else ():
                peer.held = peers_held.check(peer.tool, Path(peer.command[0]))
        except Unavailable as error:
            self.missing[name] = str(error)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            return []
        for peer in peers:
            peer.environment |= self.environment
        return peers

    def _llama(self) -> list[Peer]:
        binaries = peers_get.build_llama(self.work, self.avx2)
        bits = {"Q4_0": "4 / 8", "Q4_K_M": "4-6 / 8", "Q8_0": "8 / 8", "F16": "16 / 16"}
        out = []
        for kind in ("Q4_0", "Q4_K_M", "Q8_0"):
            command = peers_run.llama_bench(binaries, self.stand_in(f"decoder-{kind}.gguf"))
            out.append(
                Peer(f"llama.cpp {kind}", "llama.cpp", bits[kind], ("prefill", "decode"), command, "llama-bench")
            )
        for kind in ("F16", "Q8_0", "Q4_0"):
            models = [str(self.stand_in("decoder-Q4_0.gguf")), str(self.stand_in(f"vision-{kind}.gguf"))]
            command = [str(binaries / "mtmd_encode"), *models, "{threads}"]
            out.append(Peer(f"llama.cpp vision {kind}", "llama.cpp", bits[kind], ("encode",), command, "mtmd"))
        return out

    def _ik(self) -> list[Peer]:
        binaries = peers_get.build_ik(self.work, self.avx2)
        out = []
        for kind, bits in (("Q4_K_M", "4-6 / 8"), ("Q4_0", "4 / 8")):
            model = self.stand_in(f"decoder-{kind}-output.gguf")
            command = peers_run.llama_bench(binaries, model, "-rtr", "1")
            name = f"ik_llama.cpp {kind} repacked"
            out.append(Peer(name, "ik_llama.cpp", bits, ("prefill", "decode"), command, "llama-bench"))
        return out

    def _onnx(self) -> list[Peer]:
        python = peers_get.find_python(self.work, self.arguments.python)
        command = [python, HERE / "peers" / "peers_onnx.py", self.work]
        log, environment = self.work / "onnx.log", peers_get.clean_environment()
        self.made("vit-int8.onnx", lambda path: peers_get.run(command, log, env=environment))
        out = []
        for kind, bits in (("int8", "8 / 8"), ("fp32", "32 / 32")):
            command = peers_run.worker(python, "onnxruntime", self.work / f"vit-{kind}.onnx")
            out.append(Peer(f"onnxruntime {kind} (tower only)", "onnxruntime", bits, ("encode",), command))
        return out

    def _torch(self, kinds: tuple[str, ...]) -> list[Peer]:
        python = peers_get.find_python(self.work, self.arguments.python)
        names = {
            "torch-int8": ("transformers, torch dynamic int8", "8 / 8"),
            "torch-bf16": ("transformers bfloat16", "16 / 16"),
            "torch-fp32": ("transformers float32", "32 / 32"),
        }
        out = []
        for kind in kinds:
            name, bits = names[kind]
            phases = ("encode", "prefill", "decode") + (("caption",) if kind == "torch-int8" else ())
            command = peers_run.worker(python, kind, self.checkpoint())
            out.append(Peer(name, name, bits, phases, command, slow=kind != "torch-int8"))
        return out

    # ---- measuring

    def load(self) -> list[dict]:
        """What has been measured with these threads."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def finished(self) -> list[dict]:
        """Measurements of passes that came to their end; of one that was cut off and repeated, the repeated ones."""
        return peers_run.finished(self.load())

    def note(self, **entry: object) -> None:
        """Add a line to the measurements."""
        with self.log.open("a") as file:
            file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), **entry}) + "\n")

    def measure(self, started: float | None = None) -> bool:
        """All rounds; False if the time was over before. Passes that the log has are not repeated. started: when the
        time that --seconds allows began, on the monotonic clock (None: now)."""
        start, began = time.monotonic() if started is None else started, False
        passes = [(name, peers) for name, peers in self.passes() if peers or name == "folder" or name in PHASES]
        ended = [m for m in self.load() if m.get("end")]
        done = {(m["round"], m["pass"]) for m in ended}
        took: dict[str, float] = {}
        for m in ended:
            took[m["pass"]] = max(m["seconds"], took.get(m["pass"], 0.0))
        for name, why in self.missing.items():
            self.note(peer=name, missing=why)
        try:
            for number in range(self.arguments.rounds):
                for name, peers in passes:
                    if (number, name) in done:
                        continue
                    now = time.monotonic()
                    expected = took.get(name, max(took.values(), default=0.0))
                    over = now - start + expected > self.arguments.seconds if self.arguments.seconds else False
                    if over and (began or started is not None):
                        return False
                    self.run_pass(number, name, peers)
                    took[name], began = max(time.monotonic() - now, took.get(name, 0.0)), True
        finally:
            self.live.end()
        return True

    def run_pass(self, number: int, name: str, peers: list[Peer]) -> None:
        """Ours and the peers, one at a time; another one begins in every round."""
        start = time.monotonic()
        self.note(round=number, **{"pass": name}, begin=True)
        ours = self.ours()
        ours.environment |= self.environment
        wanted = {name} if name in PHASES else {phase for peer in peers for phase in peer.phases}
        if name == "folder":
            wanted = set(self.alone)
            self.note(round=number, **{"pass": name}, roof=self.roof())
        for peer in peers_live.order([ours, *peers], number):
            phases = tuple(p for p in peer.phases if p in wanted)
            print(f"{self.threads} threads, round {number + 1}, {name}: {peer.name}", file=sys.stderr, flush=True)
            about = {"round": number, "pass": name, "peer": peer.name}
            try:
                values, facts = self.measure_peer(peer, phases)
            except Unavailable as error:
                self.note(**about, missing=str(error))
                print(error, file=sys.stderr, flush=True)
                continue
            if peer.held:
                facts["held"] = peer.held
            for phase, found in values.items():
                self.note(**about, tool=peer.tool, bits=peer.bits, phase=phase, values=found, about=facts)
        self.note(round=number, **{"pass": name}, end=True, seconds=time.monotonic() - start)

    def measure_peer(self, peer: Peer, phases: tuple[str, ...]) -> tuple[dict[str, list[float]], dict]:
        """Values of the phases, facts about the program."""
        values, facts = {}, {}
        for phase in phases:
            values[phase], facts = self.live.measure(peer, phase)
        return values, facts

    def ours(self) -> Peer:
        """The engine of this checkout."""
        return peers_run.ours(self.our_model())

    def roof(self) -> dict[str, float]:
        """What the machine can do, in a process of its own: KOSMOS_EDGE_ISA is read when the module is loaded."""
        code = "import json; from kosmos_edge import _core; from kosmos_edge.bench.speed import measure_roof; "
        code += f"print(json.dumps(measure_roof(_core.isa(), {self.threads}, 5)))"
        environment = os.environ | self.environment
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True, text=True
        )
        return json.loads(done.stdout)

    def report(self) -> dict:
        """The report on what has been measured with these threads."""
        from kosmos_edge.bench.cost import Cost

        machine = peers_page.machine() | {"threads": self.threads, "isa": "avx2" if self.avx2 else "native"}
        return peers_report.report(self.finished(), machine, Cost.of(str(self.our_model())))


def numbers(text: str) -> list[int]:
    """Numbers of threads from "1,2"."""
    return [int(part) for part in text.split(",")]


def default_threads() -> list[int]:
    """One, and all cores of this process."""
    return sorted({1, len(os.sched_getaffinity(0))})


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace, known: Collection[str]) -> None:
    """--peers (a list then), --threads, --rounds, --work (a whole path then); ends the command where one is wrong."""
    arguments.peers = [p for p in arguments.peers.split(",") if p]
    if unknown := set(arguments.peers) - set(known):
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}")
    if min(arguments.threads) < 1 or arguments.rounds < 1:
        parser.error("--threads and --rounds must be at least 1")
    arguments.work = arguments.work.resolve()


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kosmos-edge" / "peers"
    parser.add_argument("--work", type=Path, default=cache, help=f"folder for everything (default: {cache})")
    parser.add_argument("--threads", type=numbers, default=default_threads(), metavar="N,N")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.add_argument("--peers", default=",".join(TOOLS), help=f"some of {','.join(TOOLS)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}; a 95 %% interval needs 6")
    parser.add_argument("--quick", action="store_true", help="two rounds, without transformers bfloat16 and float32")
    parser.add_argument("--avx2", action="store_true", help="hold everybody to AVX2 (builds llama.cpp and ik again)")
    parser.add_argument("--also-avx2", action="store_true", help="as usual, and then held to AVX2")
    parser.add_argument("--seconds", type=float, help="begin no pass that would end later than this")
    parser.add_argument("--resume", action="store_true", help="go on with the measurements in the folder")
    parser.add_argument("--prepare", action="store_true", help="measure nothing")
    parser.add_argument("--report", action="store_true", help="measure nothing, report what is there")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page of what was measured in DIR")
    parser.add_argument("--model", type=Path, help="our GGUF file of full size (default: made)")
    parser.add_argument(
        "--python", help="interpreter with torch, transformers, onnxruntime, onnx (default: found or made)"
    )
    arguments = parser.parse_args(given)
    check(parser, arguments, TOOLS)
    if arguments.quick:
        arguments.rounds = min(arguments.rounds, 2)
    return arguments


def carry_out(benches: Sequence[Bench], arguments: argparse.Namespace) -> int:
    """--prepare, --report, or all rounds of each and the reports; the exit status."""
    if arguments.prepare:
        for bench in benches:
            bench.our_model()
            names = dict.fromkeys(p.name for _, peers in bench.passes() for p in peers)
            print("ready:", ", ".join(names), file=sys.stderr)
        return 1 if any(bench.missing for bench in benches) else 0
    if not arguments.report and not measure_all(benches, arguments.resume):
        print("time is over; run again with --resume", file=sys.stderr)
        return NOT_DONE
    if not arguments.write:
        results = [bench.report() for bench in benches]
        if arguments.format == "json":
            print(json.dumps(results if len(results) > 1 else results[0], indent=1), flush=True)
        for result in results if arguments.format == "text" else ():
            print(peers_page.title(result) + "\n" + peers_report.tables(result), flush=True)
    return 0


def measure_all(benches: Sequence[Bench], resume: bool) -> bool:
    """All rounds of each; False if the time was over before."""
    started = None
    for bench in benches:
        if not resume:
            bench.log.unlink(missing_ok=True)
    for bench in benches:
        began = time.monotonic() if started is None else started
        if not bench.measure(started):
            return False
        started = began
    return True


def main() -> int:
    """Command line."""
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    held = (False, True) if arguments.also_avx2 else (arguments.avx2,)
    status = carry_out([Bench(arguments, n, avx2) for avx2 in held for n in arguments.threads], arguments)
    if arguments.write and not status and not arguments.prepare:
        peers_page.write(arguments.write, arguments.work, lambda n, avx2: Bench(arguments, n, avx2))
    return status


if __name__ == "__main__":
    sys.exit(main())
