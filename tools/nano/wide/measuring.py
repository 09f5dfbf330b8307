"""The photographs that false claims are counted on: held out of the backgrounds, or from packages fetched for that.

`measuring.txt` lists the latter by package and folder: each was looked at, and shows none of the known things.
"""

import io
import os

from wide import sources


def listed(name="measuring.txt"):
    """A list of this folder, measuring.txt or grounds.txt -> {package: [path inside it]}"""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name), encoding="utf-8") as f:
        parts = f.read().split("\n[")
    out = {}
    for part in parts[1:]:
        where, _, names = part.partition("]")
        package, folder = where.split()
        out.setdefault(package, []).extend(f"{folder}/{name}" for name in names.split())
    return out


def members(source, cache, names):
    """Yields ("package:path", path or open file) of the photographs `names` of one package, in that order"""
    archive = sources.file_of(source, cache)
    if archive is None:
        raise ValueError(f"{cache}: expected the package {source.package}, found none; run wide.sources first")
    if source.registry == "npm":
        found = {name: io.BytesIO(data) for name, data in sources.read_npm(archive, names).items()}
    else:
        folder = sources.unpack(archive, os.path.join(cache, "unpacked", source.package))
        found = {name: os.path.join(folder, name) for name in names}
    for name in names:
        if name not in found or (isinstance(found[name], str) and not os.path.exists(found[name])):
            raise ValueError(f"{archive}: expected the photograph {name}, found no such file")
        yield f"{source.package}:{name}", found[name]


def photographs(cache, tier, held_out):
    """Yields ("package:file", path or open file), one each: `held_out` [(package, path)], then all that is listed"""
    for package, path in held_out:
        yield f"{package}:{os.path.basename(path)}", path
    wanted = listed()
    for s in sources.chosen(tier):
        if s.use != "measuring":
            continue
        yield from members(s, cache, wanted.pop(s.package))
    if wanted:
        raise ValueError(f"measuring.txt names packages that are no sources for measuring: {sorted(wanted)}")
