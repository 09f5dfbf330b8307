"""From a training to a packaged file: export, compare with transformers, convert, and measure what 4 bits cost.

    python -m read.ship --run RUN --out DIR

DIR: export/, nano-read-f32.gguf, nano-read-q4_k_m.gguf, figures.json, sheet.png. Both files are measured in the runtime
on the same held-out pages. Exits 1 if the export is not what transformers reads, or the file is larger than 12 MB.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys

from read import export
from read.batches import World
from read.evaluate import SETS, EngineReader, case, figures, sheet

LARGEST = 12_000_000  # bytes of the packaged file
TYPES = ("f32", "q4_k_m")


def convert(folder, path, kind):
    subprocess.run([sys.executable, "-m", "kosmos_edge", "convert", folder, "--type", kind, "-o", path, "--overwrite"],
                   check=True)  # fmt: skip


def cost(figures_of):
    """{set: {figure: what q4_k_m lost against f32, in points}}; less than nothing: it gained"""
    better_small = {"cer"}
    out = {}
    for name, whole in figures_of["f32"].items():
        few = figures_of["q4_k_m"][name]
        pairs = {k: (whole[k], few[k]) for k in ("cer", "exact", "boxes", "silent") if k in whole}
        out[name] = {k: 100 * ((b - a) if k in better_small else (a - b)) for k, (a, b) in pairs.items()}
    return out


def ship(model, v, at, out, world, count):
    """Everything into `out`; (figures by type, lines about what is wrong)"""
    os.makedirs(out, exist_ok=True)
    folder, wrong = os.path.join(out, "export"), []
    export.write(folder, model, v)
    if importlib.util.find_spec("transformers"):
        from read.check_export import check

        worst, differ = check(folder, model, v, world)
        wrong += differ + ([f"logits differ from transformers by {worst:.1e}"] if worst > 1e-4 else [])
    else:
        print("transformers is not installed: the export was not compared with it")
    result, cases = {}, {name: [case(world, name, n) for n in range(count)] for name in SETS}
    for kind in TYPES:
        path = os.path.join(out, f"nano-read-{kind}.gguf")
        convert(folder, path, kind)
        reader = EngineReader(path)
        result[kind] = {name: figures(reader, pages) for name, pages in cases.items()}
    sheet(reader, [cases[SETS[n % 3]][n] for n in range(min(18, count))], os.path.join(out, "sheet.png"))
    size = os.path.getsize(path)
    wrong += [f"{path} has {size:,} bytes, at most {LARGEST:,} are wanted"] if size > LARGEST else []
    facts = {"pictures_of_training": at["pictures"], "minutes_of_training": round(at["minutes"]), "bytes": size}
    with open(os.path.join(out, "figures.json"), "w") as f:
        json.dump({**facts, "figures": result, "points_lost_to_4_bits": cost(result)}, f, indent=1)
        f.write("\n")
    return result, wrong


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True)
    ap.add_argument("--state", default="state.pt", help="a file of RUN")
    ap.add_argument("--out", required=True)
    ap.add_argument("--count", type=int, default=300, help="pages of each set")
    a = ap.parse_args()
    model, v, at = export.load_state(os.path.join(a.run, a.state))
    result, wrong = ship(model, v, at, a.out, World("held"), a.count)
    for kind, sets in result.items():
        for name, row in sets.items():
            print(kind, name, json.dumps({k: round(x, 4) for k, x in row.items()}))
    print("points lost to 4 bits:", json.dumps(cost(result)))
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
