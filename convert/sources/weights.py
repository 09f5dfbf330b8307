"""A weights file of any format that we read, recognised by its first bytes."""

from kosmos_edge.errors import InvalidRequest, ModelCorrupt

from .files import MAX_INDEX_BYTES, Folder, SourceFile, read_json
from .safetensors import read_safetensors
from .tensor import SourceTensor
from .torch_file import LEGACY_START, TorchFile, read_torch_legacy, read_torch_zip

MAX_SHARDS = 1000


def sniff(file: SourceFile) -> str:
    """-> "safetensors", "torch zip" or "torch stream"; anything else is an error that says what it looks like."""
    head = bytes(file.read(0, min(file.size, 64)))
    if head.startswith(b"PK\x03\x04"):
        return "torch zip"
    if head[:1] == b"\x80" and LEGACY_START in head[:32]:
        return "torch stream"
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"GGUF"):
        raise InvalidRequest(f"{file.path} is a GGUF file already; convert reads the published checkpoint")
    if head.startswith(b"version https://git-lfs"):
        raise ModelCorrupt(f"{file.path} is a git-lfs pointer, not the weights: fetch them with `git lfs pull`")
    what = "an empty file" if not head else "a bare pickle" if head[:1] == b"\x80" else f"it starts with {head[:8]!r}"
    raise ModelCorrupt(f"{file.path} is neither a safetensors file nor one of torch.save: {what}")


def read_torch(file: SourceFile, kind: str) -> TorchFile:
    """The torch file of that kind (as `sniff` names it)."""
    return read_torch_zip(file) if kind == "torch zip" else read_torch_legacy(file)


def read_state(file: SourceFile) -> dict[str, SourceTensor]:
    """The tensors of a file that holds a flat state dict {name: tensor}, whatever its format."""
    kind = sniff(file)
    if kind == "safetensors":
        return read_safetensors(file)
    torch_file = read_torch(file, kind)
    if torch_file.foreign:
        names = ", ".join(sorted(f"{f.module}.{f.name}" for f in torch_file.foreign)[:5])
        raise ModelCorrupt(f"{file.path}: a dict of tensors needs no {names}: this file is not to be trusted")
    return torch_file.tensors(torch_file.root, "the top level")


def read_sharded(folder: Folder, index: SourceFile, files: list[SourceFile]) -> dict[str, SourceTensor]:
    """The tensors that an index {"weight_map": {tensor: file name}} spreads over files, which are added to `files`."""
    weight_map = read_json(index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelCorrupt(f"{index.path}: weight_map is not an object of file names")
    shards: dict[str, dict[str, SourceTensor]] = {}
    names = sorted(set(weight_map.values()))
    if not 0 < len(names) <= MAX_SHARDS:
        raise ModelCorrupt(f"{index.path}: {len(names)} files, expected 1..{MAX_SHARDS}")
    for name in names:
        file = folder.open(name)
        files.append(file)
        shards[name] = read_state(file)
    result = {}
    for tensor_name, name in weight_map.items():
        if tensor_name not in shards[name]:
            raise ModelCorrupt(f"{index.path}: tensor {tensor_name!r} should be in {name}, which does not have it")
        result[tensor_name] = shards[name][tensor_name]
    extra = sorted(t for name in names for t in shards[name] if weight_map.get(t) != name)
    if extra:
        raise ModelCorrupt(
            f"{index.path}: {len(extra)} tensors lie in the files but not in the index: {', '.join(extra[:5])}"
        )
    return result
