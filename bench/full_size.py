"""KOSMOS-2 at full size (24 layers x 2048, 65037 tokens, random weights): sizes, memory, parity and speed.

    python bench/full_size.py --work DIR make                    # 6.7 GB checkpoint in Hugging Face's layout
    python bench/full_size.py --work DIR convert f16 q8_0 q4_k_m # time and peak memory of each conversion
    python bench/full_size.py --work DIR parity                  # ids and logits against transformers in float32
    python bench/full_size.py --work DIR speed                   # against transformers bfloat16 and float32
    python bench/full_size.py --work DIR report                  # docs/full-size.md

Each step adds to DIR/results.json and can be repeated alone. parity and speed need the reference extra. The weights
are random, so what is measured is cost and exactness, not the quality of captions.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from full_size_runners import HERE, Runner, memory_of

from kosmos_edge.targets import find_target, write_whole

ROOT = HERE.parent
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT / "tests"))
PROMPT = "<grounding>An image of"
MB = 1e6


def load_results(work: Path) -> dict:
    """What earlier steps found."""
    path = work / "results.json"
    return json.loads(path.read_text()) if path.exists() else {}


def save_results(work: Path, **new: object) -> None:
    """Add to results.json."""
    target = find_target(work / "results.json", overwrite=True)
    write_whole(target, (json.dumps(load_results(work) | new, indent=1) + "\n").encode())


def find_picture(given: str | None) -> Path:
    """The photograph to caption."""
    found = [Path(given)] if given else sorted((SHARED / "data/kosmos-2/images").glob("*.jpg"))
    found = found or sorted((ROOT / "examples").glob("*.[jp][pn]g"))
    if not found or not found[0].exists():
        raise SystemExit("no photograph: give one with --picture")
    return found[0]


# --------------------------------------------------------------------------------------------------------------- make


def make(work: Path) -> None:
    """The checkpoint: ../shared/spec/make_checkpoint.py with the published tokenizer, or one of our own."""
    folder, script = work / "hf", SHARED / "spec" / "make_checkpoint.py"
    start = time.perf_counter()
    if script.exists():
        subprocess.run([sys.executable, str(script), "--preset", "full", "--out", str(folder)], check=True)
    else:
        make_own(folder)
    save_results(work, make={"seconds": time.perf_counter() - start, "published_tokenizer": script.exists()})


def make_own(folder: Path) -> None:
    """The same sizes with a made-up vocabulary, written tensor by tensor."""
    from helpers.tiny import Tiny, TinyConfig, make_metadata, make_vocabulary, make_weight, tensor_shapes
    from helpers.tiny_hf import hf_name, write_hf_settings, write_safetensors

    config = TinyConfig(
        layers=24, width=2048, ff_width=8192, heads=32, context=2048, vision_layers=24, vision_width=1024,
        vision_ff_width=4096, vision_heads=16, image_size=224,
    )  # fmt: skip
    vocabulary = make_vocabulary(65037)
    write_hf_settings(folder, Tiny(config, vocabulary, {}, make_metadata(config, vocabulary)))
    shapes = tensor_shapes(config, len(vocabulary.pieces))
    names = {hf_name(name): name for name in shapes}
    write_safetensors(
        folder / "model.safetensors",
        {hf: shapes[name] for hf, name in names.items()},
        lambda hf: make_weight(names[hf], shapes[names[hf]], seed=0),
    )


# ------------------------------------------------------------------------------------------------------------ convert


def convert(work: Path, types: list[str]) -> None:
    """Convert in a process of its own, whose memory is looked at 20 times a second."""
    done = load_results(work).get("convert", {})
    for kind in types:
        out = work / f"{kind}.gguf"
        out.unlink(missing_ok=True)
        command = [sys.executable, "-m", "kosmos_edge.convert", str(work / "hf"), "-o", str(out), "--type", kind]
        start, anonymous, resident = time.perf_counter(), 0, 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=work)
        while process.poll() is None:
            try:
                memory = memory_of(process.pid)
            except OSError:
                break
            anonymous, resident = max(anonymous, memory.get("RssAnon", 0)), max(resident, memory.get("VmHWM", 0))
            time.sleep(0.05)
        if process.wait():
            raise SystemExit(f"conversion to {kind} failed with status {process.returncode}")
        seconds = time.perf_counter() - start
        done[kind] = {"seconds": seconds, "file": out.stat().st_size, "anonymous": anonymous, "resident": resident}
        print(f"{kind}: {seconds:.0f} s, file {out.stat().st_size / MB:.0f} MB, anonymous {anonymous / MB:.0f} MB")
        save_results(work, convert=done)


# ------------------------------------------------------------------------------------------------------------- parity


def parity(work: Path, kind: str, picture: Path, tokens: int, threads: int) -> None:
    """Greedy ids and logits of the f16 or f32 file against transformers in float32 on the very same weights."""
    import torch
    from helpers.golden_cases import relative_error
    from helpers.hf_model import HfModel
    from helpers.reference import banned_tokens
    from PIL import Image

    from kosmos_edge import _core

    torch.set_num_threads(threads)
    path = work / f"{kind}.gguf"
    rgb = np.asarray(Image.open(picture).convert("RGB"))
    height, width, _ = rgb.shape
    engine = _core.Engine(str(path), threads=threads, drafts="off")
    embedding = engine.encode_image(np.ascontiguousarray(rgb), width, height)
    segments = [("image", embedding), ("tags", PROMPT)]
    params = _core.GenerateParams()
    params.max_tokens, params.no_repeat_ngram_size, params.logprobs = tokens, 3, True
    ours = engine.generate(segments, params)
    hf = HfModel(work / "hf")
    round_weights(hf, path)
    vectors = hf.encode_image(rgb)
    ids, mask, images = hf.prompt([("image", 0), ("tags", PROMPT)], [vectors])
    theirs = hf.generate(ids, mask, images, max_new_tokens=tokens, no_repeat_ngram_size=3)
    expected = hf.logits(ids + theirs["ids"], mask, images)
    data, rows, vocab = engine.logits([*segments, ("ids", theirs["ids"])])
    got = np.frombuffer(data, np.float32).reshape(rows, vocab)
    margins = []
    for i, row in enumerate(theirs["logits"].astype(np.float64)):
        row[list(banned_tokens(ids + theirs["ids"][:i], 3))] = -np.inf
        best, second = np.sort(row)[:-3:-1]
        margins.append(best - second)
    found = {
        "picture": picture.name,
        "tokens": len(theirs["ids"]),
        "prompt_identical": ours.prompt_ids == ids,
        "ids_identical": ours.token_ids == theirs["ids"],
        "different_ids": len(set(theirs["ids"])),
        "smallest_margin": min(margins),
        "embedding_error": relative_error(
            np.frombuffer(embedding.tobytes(), np.float32).reshape(vectors.shape), vectors
        ),
        "logits_error": relative_error(got, expected),
    }
    print(json.dumps(found, indent=1))
    if not found["ids_identical"]:
        print("ours  ", ours.token_ids, "\ntheirs", theirs["ids"])
    save_results(work, parity=load_results(work).get("parity", {}) | {kind: found})


def round_weights(hf: object, path: Path) -> None:
    """Round transformers' weights to the types in which the file stores them (F16: matrices; F32: nothing)."""
    import torch
    from helpers.tiny_hf import hf_name

    from kosmos_edge import _core

    parameters = dict(hf.model.named_parameters())
    for name, dtype, *_ in _core.GgufFile(str(path)).tensors():
        if dtype == "F16":
            parameter = parameters[hf_name(name)]
            with torch.no_grad():
                parameter.copy_(parameter.half())
        elif dtype != "F32":
            raise SystemExit(f"parity needs an f16 or f32 file, {name} is {dtype}")


# -------------------------------------------------------------------------------------------------------------- speed


def read_bandwidth(threads: int) -> float:
    """Bytes per second that all threads together read from memory: the roof of decoding."""
    import torch

    torch.set_num_threads(threads)
    block = torch.ones(1 << 28, dtype=torch.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        block.sum()
        times.append(time.perf_counter() - start)
    return block.numel() * 4 / min(times)


def decoder_bytes(path: Path) -> int:
    """Bytes of weights that one token reads."""
    from kosmos_edge import _core

    tensors = _core.GgufFile(str(path)).tensors()
    return sum(entry[4] for entry in tensors if entry[0].startswith(("blk.", "output_norm", "token_embd")))


def speed(
    work: Path, types: list[str], peers: list[str], picture: Path, tokens: int, rounds: int, threads: int
) -> None:
    """Medians of rounds in which every model answers once, in turn. One transformers dtype is loaded at a time."""
    found: dict[str, dict] = {}
    bandwidth = read_bandwidth(threads)
    for peer in peers:
        runners = [Runner(kind, "ours", work / f"{kind}.gguf", threads, picture, PROMPT) for kind in types]
        runners.append(Runner(f"transformers {peer}", peer, work / "hf", threads, picture, PROMPT))
        try:
            for number in range(rounds + 1):  # the first one warms up
                for runner in runners:
                    result = runner.measure(tokens)
                    print(f"{runner.name}: {json.dumps({k: v for k, v in result.items() if k != 'ids'})}", flush=True)
                    entry = found.setdefault(runner.name, {"loaded": [], "rounds": []})
                    if number:
                        entry["rounds"].append(result)
            for runner in runners:
                found[runner.name]["loaded"].append(runner.loaded)
        finally:
            for runner in runners:
                runner.close()
    summary = {}
    for name, entry in found.items():
        keys = ("encode_ms", "prefill_ms", "first_token_ms", "decode_tokens_per_s", "total_ms")
        summary[name] = {k: statistics.median(r[k] for r in entry["rounds"]) for k in keys}
        summary[name]["load_ms"] = statistics.median(one["load_ms"] for one in entry["loaded"])
        summary[name]["about"] = entry["loaded"][0]["about"]
        summary[name]["anonymous"] = max(r["memory"]["RssAnon"] for r in entry["rounds"])
        summary[name]["peak"] = max(r["memory"]["VmHWM"] for r in entry["rounds"])
        summary[name]["prompt_tokens"] = entry["rounds"][0]["prompt_tokens"]
        if name in types:
            size = decoder_bytes(work / f"{name}.gguf")
            summary[name]["decode_bytes_per_s"] = size * summary[name]["decode_tokens_per_s"]
    how = {"tokens": tokens, "rounds": rounds, "threads": threads, "bandwidth": bandwidth, "picture": picture.name}
    save_results(work, speed={"how": how, "machine": machine(), "runners": summary})


def machine() -> str:
    """Processor and memory in words."""
    cpu = [
        line.split(":")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    return f"{(cpu or [platform.processor()])[0].strip()}, {len(os.sched_getaffinity(0))} cores, {total / 1e9:.0f} GB"


# ------------------------------------------------------------------------------------------------------------- report


def table(head: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def report(work: Path, out: Path) -> None:
    """Write the markdown page from results.json."""
    results = load_results(work)
    text = (
        "# KOSMOS-2 at full size\n\nMade by `bench/full_size.py` (its head says how to repeat it) on a checkpoint of "
        "the published sizes with random weights: 24 layers of width 2048, a ViT-L/14, 65037 tokens, 1.66 G "
        "parameters. Sizes, memory and speed are those of the published model; "
        "the quality of captions cannot be seen here.\n"
    )
    if "convert" in results:
        rows = [
            [kind, f"{r['file'] / MB:.0f}", f"{r['seconds']:.0f}", f"{r['anonymous'] / MB:.0f}"]
            for kind, r in results["convert"].items()
        ]
        text += "\n## Conversion from float32 (6658 MB)\n\n"
        text += table(["type", "file MB", "seconds", "peak anonymous memory MB"], rows)
    if "parity" in results:
        text += "\n## Against transformers in float32 on the same weights, greedy, no_repeat_ngram_size 3\n\n"
        head = ["file", "tokens", "ids", "image embedding error", "logits error", "smallest margin of a decision"]
        rows = []
        for kind, r in results["parity"].items():
            identical = "identical" if r["ids_identical"] else "DIFFERENT"
            errors = [f"{r['embedding_error']:.1e}", f"{r['logits_error']:.1e}", f"{r['smallest_margin']:.2g}"]
            rows.append([kind, f"{r['tokens']} ({r['different_ids']} different)", identical, *errors])
        text += table(head, rows) + "\nErrors: largest difference over largest magnitude per row, the worst row.\n"
    if "speed" in results:
        text += speed_text(results["speed"], results.get("convert", {}))
    out.parent.mkdir(exist_ok=True)
    out.write_text(text)
    print(out)


def speed_text(found: dict, converted: dict) -> str:
    """The speed section: medians, memory, and how near decoding comes to the memory's bandwidth."""
    how = found["how"]
    text = (
        f"\n## One caption of `{how['picture']}`\n\n{found['machine']}; {how['threads']} threads each. Medians of "
        f"{how['rounds']} rounds in which the programs take turns; {how['tokens']} tokens each. Memory reads at "
        f"{how['bandwidth'] / 1e9:.1f} GB/s here (float32 sum): decoding cannot go through its weights faster.\n\n"
    )
    head = ["", "load s", "encode ms", "prefill ms", "first token ms", "decode tok/s", "weights GB/s", "caption s",
            "anonymous MB", "peak resident MB", "file MB"]  # fmt: skip
    rows = []
    for name, r in found["runners"].items():
        size = converted.get(name, {}).get("file")
        rows.append([
            name, f"{r['load_ms'] / 1e3:.2f}", f"{r['encode_ms']:.0f}", f"{r['prefill_ms']:.0f}",
            f"{r['first_token_ms']:.0f}", f"{r['decode_tokens_per_s']:.2f}",
            f"{r['decode_bytes_per_s'] / 1e9:.1f}" if "decode_bytes_per_s" in r else "",
            f"{r['total_ms'] / 1e3:.2f}", f"{r['anonymous'] / MB:.0f}", f"{r['peak'] / MB:.0f}",
            f"{size / MB:.0f}" if size else "",
        ])  # fmt: skip
    text += table(head, rows)
    prompt = max(r["prompt_tokens"] for r in found["runners"].values())
    about = "; ".join(f"{name}: {r['about']}" for name, r in found["runners"].items())
    return text + (
        f"\nEncoding is file to image tokens, prefill {prompt} prompt tokens and the first answer token. Peak resident "
        f"memory counts the pages of the mapped model file. {about}.\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint, files and results.json")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--picture", help="photograph to caption (default: one of ../shared or examples/)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make")
    commands.add_parser("convert").add_argument("types", nargs="*", default=["f16", "q8_0", "q4_k_m"])
    sub = commands.add_parser("parity")
    sub.add_argument("--type", default="f16", choices=["f16", "f32"])
    sub.add_argument("--tokens", type=int, default=64)
    sub = commands.add_parser("speed")
    sub.add_argument("--types", nargs="+", default=["f16", "q8_0", "q4_k_m"])
    sub.add_argument("--peers", nargs="*", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    sub.add_argument("--tokens", type=int, default=33)
    sub.add_argument("--rounds", type=int, default=5)
    commands.add_parser("report").add_argument("--out", type=Path, default=ROOT / "docs" / "full-size.md")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.command == "make":
        make(a.work)
    elif a.command == "convert":
        convert(a.work.resolve(), a.types or ["f16", "q8_0", "q4_k_m"])
    elif a.command == "parity":
        parity(a.work, a.type, find_picture(a.picture), a.tokens, a.threads)
    elif a.command == "speed":
        speed(a.work, a.types, a.peers, find_picture(a.picture), a.tokens, a.rounds, a.threads)
    else:
        report(a.work, a.out)


if __name__ == "__main__":
    main()
