"""KOSMOS-2.5 at full size (1.37 G parameters, 108481 tokens, random weights): sizes, memory and exactness.

    python bench/full_size_page.py --work DIR make               # 5.5 GB checkpoint in Hugging Face's layout
    python bench/full_size_page.py --work DIR convert f16 q4_k_m # time and peak memory of each conversion
    python bench/full_size_page.py --work DIR parity             # ids and logits against transformers in float32
    python bench/full_size_page.py --work DIR report             # docs/full-size-page.md

Each step adds to DIR/results.json and can be repeated alone. parity needs the reference extra, 10 GB of memory and some
minutes. Its picture is a page of shapes, 1000 x 714, unless --picture names one.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from full_size import ROOT, SHARED, convert, load_results, save_results

from kosmos_edge.bench.workload import synthetic_photo
from kosmos_edge.targets import find_target, write_whole

SIZE = (1000, 714)  # the published example: 75 x 54 patches
PROMPT = "<ocr>"


def make(work: Path) -> None:
    """The checkpoint: ../shared/spec/make_checkpoint.py with the published tokenizer, or one of our own."""
    folder, script = work / "hf", SHARED / "spec" / "make_checkpoint.py"
    start = time.perf_counter()
    if script.exists():
        words = ["--model", "kosmos2_5", "--preset", "full", "--out", str(folder)]
        subprocess.run([sys.executable, str(script), *words], check=True)
    else:
        make_own(folder)
    save_results(work, make={"seconds": time.perf_counter() - start, "published_tokenizer": script.exists()})


def make_own(folder: Path) -> None:
    """The same sizes with a made-up vocabulary, written tensor by tensor."""
    from helpers.kosmos2_5_checkpoint import FULL_SIZES, full_vocabulary, write_settings
    from helpers.tiny import make_weight
    from helpers.tiny_hf import write_safetensors
    from models.kosmos2_5 import published

    from kosmos_edge.convert.models.kosmos2_5 import Config, tensor_table

    write_settings(folder, full_vocabulary(Config.vocab), **FULL_SIZES)
    table = {published(name): (name, shape) for _, name, shape in tensor_table(Config())}
    write_safetensors(
        folder / "model.safetensors",
        {theirs: shape for theirs, (_, shape) in table.items()},
        lambda theirs: make_weight(*table[theirs], seed=0),
    )


def round_weights(model: object, path: Path) -> None:
    """Round transformers' weights to the types in which the file stores them (F16: matrices; F32: nothing)."""
    import torch
    from models.kosmos2_5 import published

    from kosmos_edge import _core

    parameters = dict(model.named_parameters())
    for name, dtype, *_ in _core.GgufFile(str(path)).tensors():
        if dtype == "F16":
            weight = parameters[published(name)]
            with torch.no_grad():
                weight.copy_(weight.half().float())
        elif dtype != "F32":
            raise SystemExit(f"{name} is {dtype}: only f16 and f32 files can be held to transformers")


def parity(work: Path, kind: str, picture: str | None, tokens: int, threads: int, rounded: bool) -> None:
    """Image rows, greedy ids and the logits that chose them: the f16 or f32 file against transformers in float32."""
    import torch
    from helpers.golden_cases import relative_error
    from helpers.hf_page import HfPage
    from PIL import Image

    from kosmos_edge import _core

    torch.set_num_threads(threads)
    path = work / f"{kind}.gguf"
    page = synthetic_photo(1, SIZE) if picture is None else Image.open(picture).convert("RGB")
    rgb = np.asarray(page)

    hf = HfPage(work / "hf")
    if rounded:
        round_weights(hf.model, path)
    seen: list[np.ndarray] = []
    hook = hf.model.image_to_text_projection.register_forward_hook(lambda *call: seen.append(call[2][0][0].numpy()))
    given = hf.prompt(PROMPT)
    start = time.perf_counter()
    with torch.no_grad():
        out = hf.model.generate(
            flattened_patches=hf.patches(rgb), **given, do_sample=False, max_new_tokens=tokens,
            no_repeat_ngram_size=3, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    hook.remove()
    seconds = time.perf_counter() - start
    theirs = out.sequences[0, given["input_ids"].shape[1] :].tolist()
    wanted = torch.stack(out.logits)[:, 0].numpy()
    vectors = seen[0]
    del hf, out

    engine = _core.Engine(str(path), threads=threads, drafts="off")
    start = time.perf_counter()
    image = engine.encode_image(np.ascontiguousarray(rgb), *page.size)
    segments = [("image", image), ("tags", PROMPT)]
    params = _core.GenerateParams()
    params.max_tokens, params.no_repeat_ngram_size = tokens, 3
    ours = engine.generate(segments, params)
    our_seconds = time.perf_counter() - start
    rows = np.frombuffer(image.tobytes(), np.float32).reshape(image.shape)
    data, count, vocab = engine.logits([*segments, ("ids", theirs[:-1])])
    got = np.frombuffer(data, np.float32).reshape(count, vocab)[-len(theirs) :]
    found = {
        "picture": list(page.size),
        "tokens": len(theirs),
        "prompt": len(ours.prompt_ids),
        "prompt_identical": list(ours.prompt_ids) == given["input_ids"][0].tolist(),
        "ids_identical": list(ours.token_ids) == theirs,
        "same_ids": next(
            (i for i, pair in enumerate(zip(ours.token_ids, theirs, strict=False)) if len(set(pair)) > 1), len(theirs)
        ),
        "different_ids": len(set(theirs)),
        "image_rows_error": relative_error(rows, vectors),
        "logits_error": relative_error(got, wanted),
        "weights": "rounded as the file's" if rounded else "the checkpoint's",
        "seconds": {"transformers": seconds, "ours": our_seconds},
    }
    print(json.dumps(found, indent=1))
    if not found["ids_identical"]:
        print("ours  ", list(ours.token_ids), "\ntheirs", theirs)
    name = kind if rounded else f"{kind}, weights of the checkpoint"
    save_results(work, parity=load_results(work).get("parity", {}) | {name: found})


def report(work: Path, out: Path) -> None:
    """The page with the tables."""
    results = load_results(work)
    checkpoint = (work / "hf" / "model.safetensors").stat().st_size
    lines = [
        "# KOSMOS-2.5 at full size",
        "",
        "Made by `bench/full_size_page.py` (its head says how to repeat it) on a checkpoint of the published sizes",
        "with random weights: 24 layers of width 1536, an encoder of 18 layers for 4096 patches, 108481 tokens,",
        "1.37 G parameters. The quality of what is read cannot be seen here.",
        "",
        f"## Conversion from float32 ({checkpoint / 1e6:.0f} MB)",
        "",
        "| type | file MB | peak anonymous memory MB | peak resident MB |",
        "| --- | --- | --- | --- |",
    ]
    for kind, row in results.get("convert", {}).items():
        sizes = [f"{row[key] / 1e6:.0f}" for key in ("file", "anonymous", "resident")]
        lines.append(f"| {kind} | {sizes[0]} | {sizes[1]} | {sizes[2]} |")
    lines += [
        "",
        "Peak resident memory counts the pages of mapped files.",
        "",
        f"## Against transformers in float32, {SIZE[0]} x {SIZE[1]} pixels, greedy, no_repeat_ngram_size 3",
        "",
        "| file | transformers' weights | tokens | ids | image rows error | logits error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, row in results.get("parity", {}).items():
        ids = "identical" if row["ids_identical"] else f"the first {row['same_ids']} identical"
        lines.append(
            f"| {kind.split(',')[0]} | {row['weights']} | {row['tokens']} ({row['different_ids']} different) | {ids} | "
            f"{row['image_rows_error']:.1e} | {row['logits_error']:.1e} |"
        )
    lines += ["", "Errors: largest difference over largest magnitude per row, the worst row.", ""]
    write_whole(find_target(out, overwrite=True), "\n".join(lines).encode())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint, files and results.json")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--picture", help="a page (default: a synthetic one)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make")
    commands.add_parser("convert").add_argument("types", nargs="*", default=["f16", "q4_k_m"])
    sub = commands.add_parser("parity")
    sub.add_argument("--type", default="f16", choices=["f16", "f32"])
    sub.add_argument("--tokens", type=int, default=64)
    sub.add_argument("--unrounded", action="store_true", help="with the checkpoint's own weights")
    commands.add_parser("report").add_argument("--out", type=Path, default=ROOT / "docs" / "full-size-page.md")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.command == "make":
        make(a.work)
    elif a.command == "convert":
        convert(a.work.resolve(), a.types)
    elif a.command == "report":
        report(a.work, a.out)
    else:
        parity(a.work, a.type, a.picture, a.tokens, a.threads, not a.unrounded)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    main()
