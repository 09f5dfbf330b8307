"""kosmos-edge on a CUDA device beside llama.cpp's CUDA backend and transformers bfloat16: the same work, taking turns.

    python bench/cuda/cuda_peers.py --work DIR        # measures, a line of JSON each, in DIR/measured-cuda.jsonl

NEVER RUN on a card so far. bench/cuda.sh calls it. The work, the stand-in models and the protocol are bench/peers.py's:
KOSMOS-2's sizes, random weights, one process at a time, A B C and again A B C. What it needs besides, named by
environment variables, because a machine with a card may have no network:

    KOSMOS_EDGE_LLAMA_SOURCE   a folder with llama.cpp's source, which is compiled with CUDA (nvcc and cuBLAS needed);
                               without it the source package that bench/peers.py takes is downloaded
    KOSMOS_EDGE_TORCH_PYTHON   an interpreter with transformers and a torch for CUDA
    KOSMOS_EDGE_CUDA_MODEL     our file of full size, q4_k_m; without it one is made in DIR (minutes)

A peer that cannot be had is a line with the reason.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(BENCH), str(BENCH / "peers")]
sys.path.append(str(BENCH.parent))

import cuda_card  # noqa: E402 (these want the path above)
import peers  # noqa: E402
import peers_get  # noqa: E402
import peers_run  # noqa: E402
from peers_get import Unavailable  # noqa: E402
from peers_run import Peer  # noqa: E402
from peers_workers import PHOTO_ANSWER, PROMPT  # noqa: E402

BATCH = 64
POSITIONS = BATCH * (PROMPT + PHOTO_ANSWER)
OURS = "kosmos-edge q4_k_m"
TIMES = 10  # as many repeats as on a processor, where each takes that much longer
PHASES = ("encode", "first", "prefill", "decode", "caption", f"photos:{BATCH}")


def llama_version(source: Path) -> str:
    """The commit of a source folder, or of a source package its version."""
    command = ["git", "-C", str(source), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() if (source / ".git").exists() and found.returncode == 0 else str(source)


class CudaBench(peers.Bench):
    """bench/peers.py's turns with other peers."""

    alone = PHASES

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.environment["PEERS_DEVICE"] = arguments.device
        self.log = self.work / "measured-cuda.jsonl"

    def passes(self) -> Iterator[tuple[str, list[Peer]]]:
        """language, vision, batches of llama.cpp; transformers; what has no peer."""
        found = {name: self._take(name, make) for name, make in self._makers().items()}
        for name in ("language", "vision", "batch"):
            yield name, [p for p in found["llama.cpp"] if p.name.startswith(f"llama.cpp {name}")]
        for peer in found["transformers"]:
            yield peer.name, [peer]
        yield "folder", []

    def _makers(self) -> dict:
        return {"llama.cpp": self._llama, "transformers": self._transformers}

    def source(self) -> Path:
        """llama.cpp's source."""
        given = os.environ.get("KOSMOS_EDGE_LLAMA_SOURCE")
        if not given:
            return peers_get.source(self.work, "llama-cpp-python", "llama.cpp")
        if not (Path(given) / "ggml" / "src" / "ggml-cuda").is_dir():
            raise Unavailable(f"KOSMOS_EDGE_LLAMA_SOURCE: {given} is not llama.cpp's source: it has no ggml-cuda")
        return Path(given)

    def _llama(self) -> list[Peer]:
        source = self.source()
        binaries = peers_get.build_llama_cuda(self.work, source)
        version = llama_version(source)
        everything = ["-ngl", "99", "-fa", "1"]
        often = ["-r", str(TIMES * peers_run.REPEATS["decode"])]
        bits = {"Q4_K_M": "4-6 / 8", "Q4_0": "4 / 8", "F16": "16 / 16", "Q8_0": "8 / 8"}
        out = []
        for kind in ("Q4_K_M", "Q4_0"):
            model = self.stand_in(f"decoder-{kind}.gguf")
            bench = peers_run.llama_bench(binaries, model, *everything, *often)
            out.append(
                Peer(f"llama.cpp language {kind}", version, bits[kind], ("prefill", "decode"), bench, "llama-bench")
            )
            batched = [str(binaries / "llama-batched-bench"), "-m", str(model), *everything, "-c", str(POSITIONS)]
            batched += ["-npp", str(PROMPT), "-ntg", str(PHOTO_ANSWER), "-npl", str(BATCH), "--output-format", "jsonl"]
            name = f"llama.cpp batch {kind}, without the tower"
            out.append(Peer(name, version, bits[kind], (f"photos:{BATCH}",), batched, "batched-bench"))
        for kind in ("F16", "Q8_0"):
            models = [str(self.stand_in("decoder-Q4_0.gguf")), str(self.stand_in(f"vision-{kind}.gguf"))]
            command = [str(binaries / "mtmd_encode"), *models, "{threads}", "gpu"]
            out.append(Peer(f"llama.cpp vision {kind}", version, bits[kind], ("encode",), command, "mtmd", times=TIMES))
        return out

    def _transformers(self) -> list[Peer]:
        python = os.environ.get("KOSMOS_EDGE_TORCH_PYTHON", sys.executable)
        if not Path(python).exists() or not peers_get.has_modules(python, ("torch", "transformers")):
            raise Unavailable(f"{python} has no torch and transformers: KOSMOS_EDGE_TORCH_PYTHON names one that has")
        code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
        if subprocess.run([python, "-c", code], env=peers_get.clean_environment(), check=False).returncode:
            raise Unavailable(f"torch of {python} finds no CUDA device")
        command = peers_run.worker(python, "torch-cuda-bf16", self.checkpoint())
        return [Peer("transformers bfloat16", "transformers", "16 / 16", PHASES, command, times=TIMES)]

    def ours(self) -> Peer:
        """The engine of this checkout on the device."""
        command = peers_run.worker(sys.executable, "ours-cuda", self.our_model())
        return Peer(OURS, "ours", "4-6 bit weights, int8 activations", PHASES, command, times=TIMES)

    def measure_peer(self, peer: Peer, phases: tuple[str, ...]) -> tuple[dict[str, list[float]], dict]:
        """Loaded and warmed anew, all phases of the pass: a card's memory holds one program."""
        return peers_run.measure(peer, self.threads, phases)

    def roof(self) -> dict[str, float]:
        """Bytes per second of the card's memory."""
        try:
            return {"bandwidth": cuda_card.card(int(self.arguments.device.partition(":")[2] or 0))["bandwidth"]}
        except OSError as error:
            print("no bandwidth:", error, file=sys.stderr)
            return {}

    def facts(self) -> None:
        """What a token reads, for the bound."""
        from kosmos_edge.bench.cost import Cost

        cost = Cost.of(str(self.our_model()))
        self.note(decode_bytes=cost.decode_bytes(PROMPT + peers_run.ANSWER / 2), model=str(self.our_model()))


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """Command line; also what bench/peers.py's class asks of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="llama.cpp,transformers")
    parser.add_argument("--threads", type=peers.numbers, default=[len(os.sched_getaffinity(0))])
    parser.add_argument("--seconds", type=float, help="begin no pass that would end later than this; status 75")
    parser.add_argument("--resume", action="store_true", help="go on with the measurements in the folder")
    parser.add_argument("--prepare", action="store_true", help="make our model, measure nothing")
    parser.add_argument("--model", type=Path, default=os.environ.get("KOSMOS_EDGE_CUDA_MODEL"))
    arguments = parser.parse_args(given)
    peers.check(parser, arguments, ("llama.cpp", "transformers"))
    arguments.model = Path(arguments.model).resolve() if arguments.model else None
    arguments.quick, arguments.python = False, None
    return arguments


def main() -> int:
    """Command line."""
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    bench = CudaBench(arguments)
    if arguments.prepare:
        print(bench.our_model())
        return 0
    done = bench.measure()
    bench.facts()
    return 0 if done else peers.NOT_DONE


if __name__ == "__main__":
    sys.exit(main())
