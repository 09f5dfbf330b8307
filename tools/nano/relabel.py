"""Puts what a `kosmos_edge.json` says of a model into a converted GGUF file; the tensors stay as they are, bit for bit.

    python relabel.py --about wide/about-icons.json FILE.gguf

For a file that was converted before the json said so: converting the checkpoint again gives the same. Only `notice`
and `trained_tasks` are taken, which need no place in the file's name.
"""

import argparse
import json
import os
from pathlib import Path

from kosmos_edge import _core
from kosmos_edge.convert.gguf import TensorInfo, data_offsets, encode_header
from kosmos_edge.convert.requantize import read_entries
from kosmos_edge.convert.sources.files import SourceFile
from kosmos_edge.inference import trained

NOTICE, TASKS = "kosmos2.notice", "kosmos2.trained_tasks"


def relabel(path, about):
    """Writes the file anew with the notice and the trained tasks of `about`, a kosmos_edge.json as a dictionary"""
    unknown = sorted(set(about["trained_tasks"]) - set(trained.KINDS))
    if unknown:
        raise ValueError(f"trained_tasks: expected kinds of {list(trained.KINDS)}, got {unknown}")
    tensors = _core.GgufFile(os.fspath(path)).tensors()
    infos = [TensorInfo(name, dtype, tuple(shape)) for name, dtype, shape, *_ in tensors]
    start = min(offset for *_, offset, _ in tensors)
    if [offset - start for *_, offset, _ in tensors] != data_offsets(infos)[0]:
        raise ValueError(f"{path}: its tensors do not lie as the converter puts them; expected a file that it wrote")
    new = [(NOTICE, "str", about["notice"]), (TASKS, "str", ", ".join(about["trained_tasks"]))]
    with SourceFile(Path(path)) as raw:
        old = [entry for entry in read_entries(raw, start) if entry[0] not in (NOTICE, TASKS)]
        at = next(i for i, (key, *_) in enumerate(old) if key.startswith("tokenizer."))  # where the converter has them
        header = encode_header([*old[:at], *new, *old[at:]], infos)
        data = bytes(raw.read(start, raw.size - start))
    with open(f"{path}.tmp", "wb") as out:
        out.write(header + data)
    os.replace(f"{path}.tmp", path)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("file")
    ap.add_argument("--about", required=True, help="a kosmos_edge.json")
    a = ap.parse_args()
    with open(a.about, encoding="utf-8") as f:
        relabel(a.file, json.load(f))


if __name__ == "__main__":
    main()
