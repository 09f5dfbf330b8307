"""One table of a CUDA device against the processor, with the bounds beside it. Peers are not in it yet.

NEVER RUN on a card so far. bench/cuda.sh calls it; by hand: python bench/cuda_table.py --model FILE.gguf
"""

import argparse
import statistics
import subprocess
import time
from pathlib import Path

from kosmos_edge import Model, _core, load

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 64


def card() -> tuple[str, float]:
    """Name and memory bandwidth in bytes/s by its clocks (double data rate), as nvidia-smi knows them."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    name = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    known = {"H100": 3.35e12, "H200": 4.8e12, "A100": 1.94e12, "4090": 1.008e12, "5090": 1.79e12, "3090": 0.936e12}
    return name, next((b for part, b in known.items() if part in name), 0.0)


def measure(model: Model, picture: Path, runs: int = 10) -> dict[str, float]:
    """Milliseconds of the phases, and tokens per second of decoding: medians after two runs that warm up."""
    encode, prefill, decode = [], [], []
    for _ in range(runs + 2):
        r = model.generate([picture, "An image of"], max_tokens=TOKENS)
        encode.append(r.timings.encode_ms)
        prefill.append(r.timings.prefill_ms)
        decode.append((len(r.token_ids) - 1) / r.timings.decode_ms * 1000)
    values = {"encode ms": encode, "prefill ms": prefill, "tokens/s": decode}
    return {name: statistics.median(v[2:]) for name, v in values.items()}


def agreement(model: Model, reference: Model, pictures: list[Path]) -> float:
    """Share of pictures whose caption has the same ids."""
    same = [model.caption(p).token_ids == reference.caption(p).token_ids for p in pictures]
    return sum(same) / len(same)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(ROOT / "kosmos_edge/data/nano-q4_k_m.gguf"))
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    pictures = sorted((ROOT / "examples").glob("*.png"))
    name, bandwidth = card()
    weights = Path(options.model).stat().st_size
    print(f"{name}; {options.model}: {weights / 1e6:.0f} MB; {_core.devices()}")
    rows = {}
    with load(options.model, device=options.device) as on_card, load(options.model, device="cpu") as on_cpu:
        rows[on_card.description] = measure(on_card, pictures[0])
        rows[on_cpu.description] = measure(on_cpu, pictures[0])
        share = agreement(on_card, on_cpu, pictures)
        twice = [on_card.caption(pictures[0], logprobs=True).logprobs for _ in range(2)]
        many, start = pictures * 16, time.perf_counter()
        answers = list(on_card.batch(many, task="caption", batch_size=64, max_tokens=40))
        seconds = time.perf_counter() - start
    for device, values in rows.items():
        print(f"{device:60}", "  ".join(f"{key} {value:10.2f}" for key, value in values.items()))
    print(f"captions/s at batch 64: {len(answers) / seconds:.1f}")
    print(f"same ids as the processor: {share:.1%}; the same log-probabilities twice: {twice[0] == twice[1]}")
    if bandwidth:
        terabytes, roof = bandwidth / 1e12, bandwidth / weights
        print(f"roof of decoding at {terabytes:.2f} TB/s, all of the file once per token: {roof:.0f} tokens/s")


if __name__ == "__main__":
    main()
