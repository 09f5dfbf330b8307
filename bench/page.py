"""KOSMOS-2.5 at full size: a page of 4,096 patches, a prompt of 2,052 positions, an answer; ours beside transformers.

    python bench/page.py --gguf kosmos-2.5-q4_k_m.gguf --threads 2 [--rounds 5] [--tokens 64] [--json page.json]
    python bench/page.py --gguf kosmos-2.5-q4_k_m.gguf --rounds 1 --tokens 4000 --peers --kv-type q8_0    # memory

The GGUF is a converted checkpoint of the published sizes; its weights may be random, for what is measured is cost.
transformers builds the same sizes with random weights, in float32 and in bfloat16 (about 9 GB of memory together;
--peers float32 measures one alone). Every program is a process of its own that loads once and is idle while others
measure; a round is one page of each, in turn. Figures are medians over rounds; a ratio is the median of the ratios
within a round. The bound is the most that this machine can do, measured before and after the rounds: all
multiply-accumulates of a phase at the int8 peak of the instruction set, or all bytes of decoder weights and cached keys
and values at the read bandwidth. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PATCHES, PATCH_VALUES, VISION_WIDTH, VISION_FF, VISION_LAYERS = 4096, 768, 1536, 3968, 18
LATENTS, WIDTH, FF, LAYERS, VOCAB = 2048, 1536, 6144, 24, 108481
PROMPT = LATENTS + 4  # <s> <image> ... </image> <ocr>
SIDE = 1024  # pixels of a square picture, which becomes 64 x 64 patches
PHASES = ("encode", "prefill", "decode")


def encode_macs() -> int:
    """Multiply-accumulates from patches to image tokens: encoder, then resampler (its keys from the features alone)."""
    layer = PATCHES * (4 * VISION_WIDTH**2 + 3 * VISION_WIDTH * VISION_FF) + 2 * PATCHES**2 * VISION_WIDTH
    resampler = PATCHES * VISION_WIDTH * 2 * WIDTH + 2 * LATENTS * (PATCHES + LATENTS) * WIDTH + LATENTS * WIDTH**2
    return PATCHES * PATCH_VALUES * VISION_WIDTH + VISION_LAYERS * layer + resampler


def prefill_macs() -> int:
    """Of the prompt through the decoder, with the logits of its last position."""
    layer = PROMPT * (4 * WIDTH**2 + 2 * WIDTH * FF) + PROMPT * (PROMPT + 1) * WIDTH
    return LAYERS * layer + WIDTH * VOCAB


def decode_bytes(gguf: Path, tokens: int, kv_type: str = "f16") -> float:
    """Read for one token on average: the decoder's weights, and keys and values in float16 or 8 bits."""
    from kosmos_edge import _core
    from kosmos_edge.bench.cost import KV_BYTES

    tensors = _core.GgufFile(str(gguf)).tensors()
    weights = sum(entry[4] for entry in tensors if entry[0].startswith(("blk.", "output_norm", "token_embd")))
    return weights + LAYERS * 2 * WIDTH * KV_BYTES[kv_type] * (PROMPT + tokens / 2)


def bounds(token_bytes: float, peaks: dict[str, float]) -> dict[str, float]:
    """Seconds of each phase at the machine's limit; decode: of one token, which reads so many bytes."""
    return {
        "encode": encode_macs() / peaks["int8"],
        "prefill": prefill_macs() / peaks["int8"],
        "decode": token_bytes / peaks["read"],
    }


def measure_peaks(threads: int, isa: str) -> dict[str, list[float]]:
    """Multiply-accumulates and bytes per second, several samples of each."""
    from kosmos_edge import _core

    return {kind: _core.probe(kind, isa, threads, 5) for kind in ("int8", "float32", "read")}


# ------------------------------------------------------------------------------------------------------------ programs


class Ours:
    """kosmos_edge's engine."""

    def __init__(self, gguf: str, threads: int, kv_type: str) -> None:
        import numpy as np

        from kosmos_edge import _core

        self.core, self.engine = _core, _core.Engine(gguf, threads=threads, kv_type=kv_type, drafts="off")
        self.about = f"kosmos-edge, {self.engine.isa}, keys and values {self.engine.kv_type}"
        self.pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)

    def page(self, tokens: int) -> dict[str, float]:
        """Seconds: encode with the patches made, prefill, decode per token."""
        self.pixels += 1  # a new picture: no cache helps
        start = time.perf_counter()
        image = self.engine.encode_image(self.pixels.tobytes(), SIDE, SIDE)
        encoded = time.perf_counter()
        params = self.core.GenerateParams()
        params.max_tokens, params.no_repeat_ngram_size = tokens, 0
        times: list[float] = []
        answer = self.engine.generate(
            [("image", image), ("tags", "<ocr>")], params, lambda *_: times.append(time.perf_counter())
        )
        if len(answer.prompt_ids) != PROMPT:
            raise SystemExit(
                f"the prompt has {len(answer.prompt_ids)} positions, not {PROMPT}: not the published sizes"
            )
        if len(times) < 2:
            raise SystemExit("the answer ended at its first token: take a checkpoint of another seed")
        decode = (times[-1] - times[0]) / (len(times) - 1)
        return {"encode": encoded - start, "prefill": times[0] - encoded, "decode": decode, "tokens": len(times)}


class Theirs:
    """transformers with random weights of the published sizes."""

    def __init__(self, dtype: str, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        torch.set_default_dtype(getattr(torch, dtype))
        self.torch = torch
        self.model = transformers.Kosmos2_5ForConditionalGeneration(transformers.Kosmos2_5Config()).eval()
        self.about = f"transformers {transformers.__version__}, torch {torch.__version__}, {dtype}"
        side = int(PATCHES**0.5)
        self.patches = torch.randn(1, PATCHES, 2 + PATCH_VALUES)
        self.patches[0, :, 0] = torch.arange(1, side + 1).repeat_interleave(side)
        self.patches[0, :, 1] = torch.arange(1, side + 1).repeat(side)
        self.ids = torch.tensor([[0, 100283, *[0] * LATENTS, 100284, 100282]])
        self.mask = torch.tensor([[0, -1, *[1] * LATENTS, -1, 0]])

    def page(self, tokens: int) -> dict[str, float]:
        """As Ours.page, without making the patches. Only the last position's logits are asked for."""
        torch, model = self.torch, self.model
        with torch.no_grad():
            start = time.perf_counter()
            features = model.vision_model(flattened_patches=self.patches).last_hidden_state
            image = model.image_to_text_projection(torch.nn.functional.normalize(features, dim=-1))[0]
            encoded = time.perf_counter()
            out = model.text_model(
                input_ids=self.ids, image_embeds=image, image_embeds_position_mask=self.mask, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            first = time.perf_counter()
            for at in range(1, tokens):
                out = model.text_model(
                    input_ids=out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True,
                    position_ids=torch.tensor([[PROMPT + at + 1]]), logits_to_keep=1,
                )  # fmt: skip
            end = time.perf_counter()
        return {
            "encode": encoded - start,
            "prefill": first - encoded,
            "decode": (end - first) / max(tokens - 1, 1),
            "tokens": tokens,
        }


def peak_bytes() -> int:
    """The most memory that this process has had (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def work(kind: str, gguf: str, threads: int, kv_type: str) -> None:
    """The child process: a line of JSON when loaded, then one for each line with a number of tokens."""
    program = Ours(gguf, threads, kv_type) if kind == "ours" else Theirs(kind, threads)
    print(json.dumps({"about": program.about}), flush=True)
    for line in sys.stdin:
        print(json.dumps(program.page(int(line)) | {"peak": peak_bytes()}), flush=True)


class Worker:
    """The other side of the pipe."""

    def __init__(self, kind: str, gguf: Path, threads: int, kv_type: str) -> None:
        command = [sys.executable, __file__, "--gguf", str(gguf), "--threads", str(threads), "--worker", kind]
        command += ["--kv-type", kv_type]
        self.kind = kind
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about: str = self._answer()["about"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.kind}: the process ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def page(self, tokens: int) -> dict[str, float]:
        """One page."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{tokens}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# -------------------------------------------------------------------------------------------------------------- report


def end_to_end(page: dict[str, float], tokens: int) -> float:
    """Seconds of a page with an answer of so many tokens."""
    return page["encode"] + page["prefill"] + tokens * page["decode"]


def table(found: dict[str, Any]) -> str:
    """Markdown: seconds of each phase, how much slower than ours, how near to the bound."""
    rounds: dict[str, list[dict[str, float]]] = found["rounds"]
    columns = [*PHASES, "page of 500 tokens"]

    def value(page: dict[str, float], column: str) -> float:
        return page[column] if column in PHASES else end_to_end(page, 500)

    limit = found["bounds"] | {"page of 500 tokens": end_to_end(found["bounds"], 500)}
    lines = ["| program | " + " | ".join(columns) + " | peak memory |", "| --- |" + " --- |" * (len(columns) + 1)]
    lines.append("| bound | " + " | ".join(f"{limit[c]:.4g} s" for c in columns) + " | |")
    for kind, pages in rounds.items():
        cells = []
        for c in columns:
            middle = statistics.median(value(p, c) for p in pages)
            if kind == "ours":
                cells.append(f"{middle:.4g} s, {100 * limit[c] / middle:.0f} % of the bound")
            else:
                ratio = statistics.median(value(p, c) / value(o, c) for p, o in zip(pages, rounds["ours"], strict=True))
                cells.append(f"{middle:.4g} s, {ratio:.2f} times ours")
        peak = max(p["peak"] for p in pages)
        lines.append(f"| {found['about'][kind]} | " + " | ".join(cells) + f" | {peak / 1e6:.0f} MB |")
    how = found["how"]
    peaks = found["peaks"]
    lines += [
        "",
        f"{how['threads']} threads, {how['rounds']} rounds, answers of {how['tokens']} tokens; decode is one token. "
        f"Bound: {encode_macs() / 1e9:.0f} and {prefill_macs() / 1e9:.0f} GMAC at "
        f"{peaks['int8'] / 1e9:.0f} GMAC/s int8, "
        f"{found['decode_bytes'] / 1e6:.0f} MB at {peaks['read'] / 1e9:.1f} GB/s. The float32 peak is "
        f"{peaks['float32'] / 1e9:.0f} GMAC/s.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer; at least 2")
    parser.add_argument("--peers", nargs="*", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--kv-type", choices=["f16", "q8_0"], default="f16", help="of our keys and values")
    parser.add_argument("--json", type=Path, help="write all rounds there, too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker, str(args.gguf), args.threads, args.kv_type)
    if args.tokens < 2 or args.rounds < 1 or args.threads < 1:
        parser.error("--tokens must be at least 2, --rounds and --threads at least 1")
    samples = [measure_peaks(args.threads, "")]
    workers = [Worker(kind, args.gguf, args.threads, args.kv_type) for kind in ("ours", *args.peers)]
    rounds: dict[str, list[dict[str, float]]] = {w.kind: [] for w in workers}
    try:
        for number in range(args.rounds + 1):  # the first one warms up
            for w in workers:
                page = w.page(args.tokens)
                print(f"round {number}, {w.kind}: {json.dumps(page)}", file=sys.stderr, flush=True)
                if number:
                    rounds[w.kind].append(page)
    finally:
        for w in workers:
            w.close()
    samples.append(measure_peaks(args.threads, ""))
    peaks = {kind: statistics.median([*samples[0][kind], *samples[1][kind]]) for kind in samples[0]}
    token_bytes = decode_bytes(args.gguf, args.tokens, args.kv_type)
    how = {"gguf": str(args.gguf), "threads": args.threads, "rounds": args.rounds, "tokens": args.tokens}
    how["kv_type"] = args.kv_type
    found = {
        "how": how,
        "about": {w.kind: w.about for w in workers},
        "peaks": peaks,
        "decode_bytes": token_bytes,
        "bounds": bounds(token_bytes, peaks),
        "rounds": rounds,
    }
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found), end="")


if __name__ == "__main__":
    main()
