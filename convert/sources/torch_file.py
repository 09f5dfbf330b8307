"""Files of `torch.save`: the zip container (torch >= 1.6) and the older plain stream, mapped lazily.

zip: `<prefix>/data.pkl` is the pickle, `<prefix>/data/<key>` the bytes of one storage, `<prefix>/byteorder` optional.
stream: five pickles (magic number, protocol, system, object, list of storage keys), then per key an int64 number of
values and the values. Source: torch/serialization.py (`_save`, `_legacy_save`).
"""

from dataclasses import dataclass
from typing import Any

from kosmos_edge.errors import ModelCorrupt

from .files import SourceFile, brief
from .tensor import ITEM_BYTES, SourceTensor
from .unpickle import MAX_PICKLE_BYTES, Foreign, Machine, Storage, Tensor, unpickle
from .zip_stored import read_zip

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # after PROTO: LONG1 of the magic number, STOP
_LEGACY_PROTOCOL = 1001


@dataclass
class TorchFile:
    """The unpickled object, and where its storages lie."""

    file: SourceFile
    root: Any
    foreign: set[Foreign]
    _at: dict[str, tuple[int, int]]  # storage key -> (offset, bytes) in the file

    def tensor(self, name: str, value: Tensor) -> SourceTensor:
        """The tensor `value` of the object as a range of the file."""
        storage = value.storage
        if storage.key not in self._at:
            raise ModelCorrupt(f"{self.file.path}: tensor {name!r}: storage {storage.key!r} is not in the file")
        offset, size = self._at[storage.key]
        item = ITEM_BYTES[storage.dtype]
        if storage.elements * item != size:
            raise ModelCorrupt(
                f"{self.file.path}: tensor {name!r}: storage {storage.key!r} should hold {storage.elements} values of "
                f"{storage.dtype} ({storage.elements * item} bytes), the file has {size} bytes"
            )
        return SourceTensor(name, storage.dtype, value.shape, self.file, offset + value.offset * item)

    def tensors(self, state: Any, where: str) -> dict[str, SourceTensor]:
        """The tensors of a state dict {name: tensor}; anything else in it is an error."""
        if not isinstance(state, dict) or not state:
            raise ModelCorrupt(f"{self.file.path}: {where} is not a dict of tensors")
        result = {}
        for name, value in state.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise ModelCorrupt(
                    f"{self.file.path}: {where}[{brief(name)}] is a {type(value).__name__}, not a tensor"
                )
            result[name] = self.tensor(name, value)
        return result


def read_torch_zip(file: SourceFile) -> TorchFile:
    records = read_zip(file)
    pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ModelCorrupt(f"{file.path}: expected one record */data.pkl of torch.save, found {len(pickles)}")
    prefix = pickles[0][: -len("data.pkl")]
    if prefix + "constants.pkl" in records:
        raise ModelCorrupt(f"{file.path} is a TorchScript program, not a checkpoint")
    order = records.get(prefix + "byteorder")
    if order is not None and bytes(file.read(order.offset, min(order.size, 16))) != b"little":
        raise ModelCorrupt(f"{file.path}: written with another byte order than little endian")
    record = records[pickles[0]]
    if record.size > MAX_PICKLE_BYTES:
        raise ModelCorrupt(f"{file.path}: pickle of {record.size} bytes, expected at most {MAX_PICKLE_BYTES}")
    root, foreign = unpickle(bytes(file.read(record.offset, record.size)), str(file.path))
    data = prefix + "data/"
    at = {name[len(data) :]: (r.offset, r.size) for name, r in records.items() if name.startswith(data)}
    return TorchFile(file, root, foreign, at)


def read_torch_legacy(file: SourceFile) -> TorchFile:
    head = bytes(file.read(0, min(file.size, MAX_PICKLE_BYTES)))
    results: list[Any] = []
    foreign: set[Foreign] = set()
    storages: dict[str, Storage] = {}
    end = 0
    for _ in range(5):
        machine = Machine(head[end:], str(file.path))
        results.append(machine.run())
        foreign |= machine.foreign
        storages |= machine.storages
        end += machine.end
    magic, protocol, system, root, keys = results
    if (
        magic != _LEGACY_MAGIC
        or protocol != _LEGACY_PROTOCOL
        or not isinstance(system, dict)
        or system.get("little_endian") is not True
    ):
        raise ModelCorrupt(f"{file.path}: not a little-endian torch stream of protocol {_LEGACY_PROTOCOL}")
    if not isinstance(keys, list) or not all(type(key) is str for key in keys) or len(set(keys)) != len(keys):
        raise ModelCorrupt(f"{file.path}: the list of storages is malformed")
    at: dict[str, tuple[int, int]] = {}
    for key in keys:
        if key not in storages:
            raise ModelCorrupt(f"{file.path}: a storage is listed that no tensor uses")
        elements = int.from_bytes(file.read(end, 8), "little")
        size = elements * ITEM_BYTES[storages[key].dtype]
        if end + 8 + size > file.size:
            raise ModelCorrupt(f"{file.path}: storage {key!r} of {elements} values passes the end of the file")
        at[key] = (end + 8, size)
        end += 8 + size
    if end != file.size:
        raise ModelCorrupt(f"{file.path}: the storages end at byte {end}, the file at {file.size}")
    return TorchFile(file, root, foreign, at)
