"""LLaVA at published sizes beside llama.cpp, ik_llama.cpp and transformers: the same model, random weights, in turn.

    python bench/llava.py --work DIR --model tinyllava --threads 2      # get, build, make, measure, a table
    python bench/llava.py --work DIR --model llava-7b --peers llama.cpp,ik_llama.cpp     # 8 of its 32 layers
    python bench/llava.py --work DIR --write docs/llava-speed.md        # a page of what was measured in DIR

The rest of the command line, the work folder and the peers' builds are those of peers.py. A picture is 576 rows of a
prompt of 600 positions; an answer has 32 tokens. llama-bench decodes on an empty context, ours and transformers behind
the prompt. The page's figures want an idle machine.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import peers
from peers import Bench

import llava_models  # isort: skip  (peers puts its folder on the path)
import peers_get  # isort: skip
import peers_page  # isort: skip
import peers_report  # isort: skip
import peers_run  # isort: skip
from peers_run import Peer  # isort: skip

TOOLS = ("llama.cpp", "ik_llama.cpp", "transformers")


class LlavaBench(Bench):
    """The work of one model; its files lie in a folder of its own."""

    alone = ()

    def __init__(self, arguments: argparse.Namespace, threads: int | None = None, avx2: bool = False) -> None:
        super().__init__(arguments, threads, avx2)
        self.sizes = llava_models.MODELS[arguments.size]
        self.folder = self.work / arguments.size
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / self.log.name

    def checkpoint(self) -> Path:
        """In transformers' layout."""
        folder = self.folder / "hf"
        if not (folder / "model.safetensors").exists():
            print("making", folder, file=sys.stderr, flush=True)
            llava_models.write_checkpoint(folder, self.sizes)
        return folder

    def our_model(self) -> Path:
        """The checkpoint as our default file."""
        if self.arguments.model:
            return self.arguments.model
        name, log = f"{self.arguments.size}/ours-q4_k_m.gguf", self.folder / "convert.log"
        command = [sys.executable, "-m", "kosmos_edge.convert"]
        return self.made(
            name,
            lambda path: peers_get.run([*command, self.checkpoint(), "--type", "q4_k_m", "-o", path], log),
        )

    def ours(self) -> Peer:
        """The engine of this checkout."""
        return peers_run.ours(self.our_model(), llava_models.WORDS)

    def stand_in(self, name: str) -> Path:
        """A file of llama.cpp's pair."""
        write = dict(llava_models.files(self.sizes))[name]
        return self.made(f"{self.arguments.size}/{name}", write)

    def _makers(self) -> dict[str, Callable[[], list[Peer]]]:
        kinds = ("llava-bf16", "llava-fp32")
        return {"llama.cpp": self._llama, "ik_llama.cpp": self._ik, "transformers": lambda: self._torch(kinds)}

    def _text(self, tool: str, binaries: Path, *more: str) -> Iterator[Peer]:
        for kind, bits in (("Q4_K_M", "4-6 / 8"), ("Q4_0", "4 / 8")):
            model = self.stand_in(f"text-{kind}.gguf")
            command = peers_run.llama_bench(binaries, model, *more, prompt=llava_models.PROMPT)
            name = f"{tool} {kind}{' repacked' if more else ''}"
            yield Peer(name, tool, bits, ("prefill", "decode"), command, "llama-bench")

    def _llama(self) -> list[Peer]:
        binaries = peers_get.build_llama(self.work, self.avx2)
        out = list(self._text("llama.cpp", binaries))
        for kind, bits in (("F16", "16 / 16"), ("Q8_0", "8 / 8"), ("Q4_0", "4 / 8")):
            models = [str(self.stand_in("text-Q4_0.gguf")), str(self.stand_in(f"mmproj-{kind}.gguf"))]
            command = [str(binaries / "mtmd_encode"), *models, "{threads}", str(llava_models.VISION["image"])]
            out.append(Peer(f"llama.cpp vision {kind}", "llama.cpp", bits, ("encode",), command, "mtmd"))
        return out

    def _ik(self) -> list[Peer]:
        return list(self._text("ik_llama.cpp", peers_get.build_ik(self.work, self.avx2), "-rtr", "1"))

    def _torch(self, kinds: tuple[str, ...]) -> list[Peer]:
        found = next(
            (
                p
                for p in (self.arguments.python, sys.executable)
                if p and peers_get.has_modules(p, ("torch", "transformers"))
            ),
            None,
        )
        python = found or peers_get.find_python(self.work, self.arguments.python)
        names = {"llava-bf16": ("transformers bfloat16", "16 / 16"), "llava-fp32": ("transformers float32", "32 / 32")}
        out = []
        for kind in kinds:
            name, bits = names[kind]
            command = peers_run.worker(python, kind, self.arguments.size)
            out.append(Peer(name, name, bits, ("encode", "prefill", "decode"), command, slow=True))
        return out

    def report(self) -> dict:
        """The report on what has been measured with these threads."""
        from kosmos_edge.bench.cost import Cost

        isa = "avx2" if self.avx2 else "native"
        machine = peers_page.machine() | {"threads": self.threads, "isa": isa, "model": self.sizes.about}
        cost = Cost.of(str(self.our_model()))
        return peers_report.report(self.finished(), machine, cost, llava_models.PROMPT)


def parse(given: list[str]) -> argparse.Namespace:
    """Command line: --model names one of ours, all else is that of peers.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", dest="size", choices=sorted(llava_models.MODELS), default="tinyllava")
    parser.add_argument("--peers", default=",".join(TOOLS), help=f"some of {','.join(TOOLS)}")
    own, rest = parser.parse_known_args(given)
    if unknown := set(own.peers.split(",")) - {*TOOLS, ""}:
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}")
    arguments = peers.parse([*rest, "--peers", own.peers])
    arguments.size = own.size
    return arguments


def page(benches: list[LlavaBench]) -> str:
    """What was measured, in markdown."""
    parts = [
        "# LLaVA at published sizes",
        "Made by `python bench/llava.py --work DIR --write FILE`; the head of that file says what is measured. Random\n"
        "weights; every program runs the same model on the same machine, in turn, and a ratio above 1 means that\n"
        "kosmos-edge is faster. llama-bench decodes on an empty context, the others behind a prompt of 600 positions.",
    ]
    for bench in benches:
        result = bench.report()
        machine = result["machine"]
        read, products = machine["read_bytes_per_s"] / 1e9, machine["int8_macs_per_s"] / 1e9
        peaks = f"reads {read:.1f} GB/s, {products:.0f} thousand million int8 products/s"
        parts += [
            f"## {machine['model']}",
            f"{machine['cpu']}, {machine['threads']} threads; {peaks}; rounds: {machine['rounds']}.",
            peers_report.tables(result, markdown=True).rstrip(),
        ]
    return "\n\n".join(parts) + "\n"


def measured(arguments: argparse.Namespace) -> list[LlavaBench]:
    """Every model with measurements in the work folder."""
    found = []
    for size in llava_models.MODELS:
        bench = LlavaBench(argparse.Namespace(**(vars(arguments) | {"size": size})))
        if bench.log.exists():
            found.append(bench)
    return found


def main() -> int:
    """Command line."""
    arguments = parse(sys.argv[1:])
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.write:
        arguments.write.write_text(page(measured(arguments)), encoding="utf-8")
        return 0
    return peers.carry_out([LlavaBench(arguments, n, arguments.avx2) for n in arguments.threads], arguments)


if __name__ == "__main__":
    sys.exit(main())
