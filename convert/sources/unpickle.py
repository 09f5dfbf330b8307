"""A pickle virtual machine that can only build data.

`torch.save` writes pickles, and a pickle is a program. This machine knows the opcodes that checkpoints use and
nothing else, builds None, numbers, text, lists, tuples, dicts and the records below, and never imports, calls or
looks up anything that the file names:

- a global of the fixed table `KNOWN` stands for a constructor of ours;
- any other global is an inert `Foreign` name; "calling" it (REDUCE, NEWOBJ) gives an inert `Record`;
- globals of `REFUSED` modules (no checkpoint needs them, every attack does) are errors.

There is no fallback. Opcodes: Python's Lib/pickletools.py; what torch writes: torch/serialization.py,
torch/_utils.py.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from kosmos_edge.errors import ModelCorrupt

MAX_PICKLE_BYTES = 1 << 24
MAX_OPCODES = 2_000_000
MAX_STACK = 100_000
MAX_MEMO = 500_000
MAX_DEPTH = 200
MAX_TENSOR_DIMS = 8
_MAX_KEY = 1 << 60
_MAX_NAME = 256  # characters of a global or of a storage's key

# torch's storage classes -> our dtype names.
STORAGES: Final = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}

# Modules that run, load or reach something: nothing in them is data.
REFUSED: Final = frozenset({
    "os", "posix", "nt", "subprocess", "sys", "builtins", "__builtin__", "importlib", "imp", "runpy", "pty", "socket",
    "shutil", "ctypes", "_ctypes", "code", "codeop", "pickle", "_pickle", "cPickle", "marshal", "operator", "_operator",
    "inspect", "gc", "signal", "threading", "multiprocessing", "webbrowser", "http", "urllib", "asyncio", "ssl", "io",
    "_io", "pdb", "bdb", "timeit", "cProfile", "profile", "commands", "site", "venv", "pip", "zipimport", "pkgutil",
    "atexit", "_thread",
})  # fmt: skip
# What builtins must still provide, inert as any other name: settings refer to plain types, enumerations use getattr.
_BUILTIN_DATA: Final = frozenset({
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list", "object", "range",
    "set", "slice", "str", "tuple", "type",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Foreign:
    """The name of a global that means nothing to us."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class Record:
    """What a Foreign would have built: its name, the arguments, the state. Inert."""

    kind: Foreign
    arguments: tuple[Any, ...]
    state: Any = None
    items: list[Any] = field(default_factory=list)  # what SETITEMS and APPENDS put in


@dataclass(frozen=True, slots=True)
class Storage:
    """A flat array in another part of the file. elements: how many values the pickle says it has."""

    key: str
    dtype: str
    elements: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A dense, contiguous view of a storage, from value `offset`."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """A global of the fixed table."""

    name: str
    build: Callable[[tuple[Any, ...]], Any] | None  # None: may be named, may not be called
    storage_dtype: str = ""


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _rebuild_tensor(arguments: tuple[Any, ...]) -> Tensor:
    if not 4 <= len(arguments) <= 7 or not isinstance(arguments[0], Storage):
        raise ValueError("a tensor is built of (storage, offset, shape, strides, ...)")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise ValueError("a tensor's shape and strides are tuples of one length")
    if len(shape) > MAX_TENSOR_DIMS or not all(_count(n) for n in (offset, *shape, *strides)):
        raise ValueError(f"offset, shape or strides are not at most {MAX_TENSOR_DIMS} non-negative integers")
    elements, contiguous = 1, True
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        contiguous &= n == 1 or stride == elements
        elements *= n
    if elements and not contiguous:
        raise ValueError(f"tensor of shape {shape} has strides {strides}; only contiguous tensors are read")
    if offset + elements > storage.elements:
        raise ValueError(f"tensor of shape {shape} at {offset} exceeds its storage of {storage.elements} values")
    return Tensor(storage, offset, shape)


def _rebuild_parameter(arguments: tuple[Any, ...]) -> Tensor:
    if len(arguments) != 3 or not isinstance(arguments[0], Tensor):
        raise ValueError("a parameter is built of (tensor, requires_grad, hooks)")
    return arguments[0]


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise ValueError("an OrderedDict is built empty")
    return {}


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) != 1 or not isinstance(arguments[0], tuple):
        raise ValueError("a torch.Size is built of one tuple")
    return arguments[0]


KNOWN: Final[dict[tuple[str, str], _Known]] = {
    ("collections", "OrderedDict"): _Known("collections.OrderedDict", _ordered_dict),
    ("torch._utils", "_rebuild_tensor"): _Known("torch._utils._rebuild_tensor", _rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Known("torch._utils._rebuild_tensor_v2", _rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Known("torch._utils._rebuild_parameter", _rebuild_parameter),
    ("torch", "Size"): _Known("torch.Size", _size),
    **{("torch", name): _Known(f"torch.{name}", None, dtype) for name, dtype in STORAGES.items()},
}


class _Mark:
    """The bottom of a MARK group on the stack."""


_MARK = _Mark()
_U16, _U32, _I32, _U64, _F64 = (struct.Struct(f) for f in ("<H", "<I", "<i", "<Q", ">d"))


def _drop(_: object) -> None:
    """Drops a value."""


class Machine:
    """Runs one pickle out of a buffer. `where` names it in messages."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._where = where
        self._at = 0
        self._op_at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._depth: dict[int, int] = {}  # id of a container -> levels below it; `_alive` keeps the ids valid
        self._alive: list[Any] = []
        self.storages: dict[str, Storage] = {}  # every storage that was referred to, by key
        self.foreign: set[Foreign] = set()  # every unknown global that was named

    # ---- reading

    def _bad(self, what: str) -> ModelCorrupt:
        return ModelCorrupt(f"{self._where}: pickle, byte {self._op_at}: {what}")

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise self._bad(f"{count} bytes expected, {len(self._data) - self._at} are left")
        part = self._data[self._at : end]
        self._at = end
        return part

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + 1024)
        if end < 0:
            raise self._bad("a name without an end")
        line = self._data[self._at : end]
        self._at = end + 1
        return self._text(line)

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise self._bad("text that is not UTF-8") from None

    # ---- the stack

    def _push(self, value: Any) -> None:
        if len(self._stack) >= MAX_STACK:
            raise self._bad(f"more than {MAX_STACK} values on the stack")
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack:
            raise self._bad("the stack is empty")
        value = self._stack.pop()
        if value is _MARK:
            raise self._bad("a mark where a value is needed")
        return value

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise self._bad("no value on the stack")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        stack = self._stack
        for i in range(len(stack) - 1, -1, -1):
            if stack[i] is _MARK:
                group = stack[i + 1 :]
                del stack[i:]
                return group
        raise self._bad("no mark on the stack")

    def _track(self, container: Any, children: list[Any] | tuple[Any, ...]) -> None:
        """Bounds the nesting: containers this deep occur in no checkpoint."""
        depth = self._depth
        below = max((depth.get(id(child), 0) for child in children), default=0) + 1
        if below > MAX_DEPTH:
            raise self._bad(f"more than {MAX_DEPTH} levels of nesting")
        if id(container) not in depth:
            self._alive.append(container)
        depth[id(container)] = max(below, depth.get(id(container), 0))

    def _push_container(self, container: Any, children: list[Any] | tuple[Any, ...] = ()) -> None:
        self._track(container, children)
        self._push(container)

    # ---- opcodes that build

    def _tuple(self, values: list[Any]) -> None:
        self._push_container(tuple(values), values)

    def _set_items(self, target: Any, pairs: list[Any]) -> None:
        if len(pairs) % 2:
            raise self._bad("a key without a value")
        if isinstance(target, Record):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                if key is not None and type(key) not in (str, int, bool, bytes):  # none whose hash recurses
                    raise self._bad(f"a dict key of type {type(key).__name__}")
                if type(key) is int and not -_MAX_KEY < key < _MAX_KEY:  # larger ones can be made to share one hash
                    raise self._bad("a dict key that is a huge integer")
                target[key] = value
        else:
            raise self._bad(f"items are set in a {type(target).__name__}")
        self._track(target, pairs)

    def _append_items(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, Record):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise self._bad(f"values are appended to a {type(target).__name__}")
        self._track(target, values)

    def _global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or len(module) + len(name) > _MAX_NAME:
            raise self._bad(f"a global's name is not text of at most {_MAX_NAME} characters")
        known = KNOWN.get((module, name))
        if known is not None:
            self._push(known)
            return
        roots = {module, module.split(".")[0]}
        data_type = module in ("builtins", "__builtin__") and name in _BUILTIN_DATA
        if (roots & REFUSED and not data_type) or (module, name) == ("torch.storage", "_load_from_bytes"):
            raise self._bad(f"it asks for {module}.{name}, which no checkpoint needs: this file is not to be trusted")
        foreign = Foreign(module, name)
        self.foreign.add(foreign)
        self._push(foreign)

    def _call(self, function: Any, arguments: Any) -> None:
        """REDUCE and NEWOBJ: constructors of the table, or an inert record."""
        if not isinstance(arguments, tuple):
            raise self._bad(f"arguments are a {type(arguments).__name__}, not a tuple")
        if isinstance(function, Foreign):
            self._push_container(Record(function, arguments), arguments)
            return
        if not isinstance(function, _Known) or function.build is None:
            raise self._bad(f"a {getattr(function, 'name', type(function).__name__)} is called")
        try:
            result = function.build(arguments)
        except ValueError as error:
            raise self._bad(f"{function.name}: {error}") from None
        self._push_container(result)

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Record):
            target.state = state
            self._track(target, [state])
        elif not isinstance(target, dict):  # attributes of a dict (nn.Module's `_metadata`) say nothing about weights
            raise self._bad(f"state is given to a {type(target).__name__}")

    def _persistent(self) -> None:
        """The reference to a storage: ("storage", class, key, device, number of values[, view])."""
        ref = self._pop()
        if not isinstance(ref, tuple) or len(ref) not in (5, 6) or ref[0] != "storage" or ref[5:] not in ((), (None,)):
            raise self._bad("a reference that is not a storage")
        _, kind, key, device, elements = ref[:5]
        if not isinstance(kind, _Known) or not kind.storage_dtype:
            raise self._bad("a storage of unknown type")
        if type(key) is not str or len(key) > _MAX_NAME or type(device) is not str or not _count(elements):
            raise self._bad("a storage whose key, device or length is malformed")
        storage = self.storages.setdefault(key, Storage(key, kind.storage_dtype, elements))
        if (storage.dtype, storage.elements) != (kind.storage_dtype, elements):
            raise self._bad(f"storage {key!r} is described in two ways")
        self._push(storage)

    def _memoize(self, index: int) -> None:
        if len(self._memo) >= MAX_MEMO and index not in self._memo:
            raise self._bad(f"more than {MAX_MEMO} memo entries")
        self._memo[index] = self._top()

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise self._bad(f"memo {index} was never set")
        self._push(self._memo[index])

    # ---- the loop

    def run(self) -> Any:
        """The object that the pickle describes."""
        if len(self._data) > MAX_PICKLE_BYTES:
            raise self._bad(f"{len(self._data)} bytes; at most {MAX_PICKLE_BYTES} are expected")
        for _ in range(MAX_OPCODES):
            self._op_at = self._at
            op = self._take(1)
            if op == b".":
                result = self._pop()
                if self._stack:
                    raise self._bad("values are left on the stack at the end")
                return result
            action = _OPCODES.get(op)
            if action is None:
                raise self._bad(f"opcode {op!r} is not one that checkpoints use")
            action(self)
        raise self._bad(f"more than {MAX_OPCODES} opcodes")

    @property
    def end(self) -> int:
        """Bytes that the pickle took."""
        return self._at

    def _proto(self) -> None:
        version = self._take(1)[0]
        if version > 5:
            raise self._bad(f"protocol {version}, expected at most 5")

    def _long1(self) -> None:
        raw = self._take(self._take(1)[0])
        self._push(int.from_bytes(raw, "little", signed=True))

    def _counted(self, length: struct.Struct) -> bytes:
        return self._take(length.unpack(self._take(length.size))[0])

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._call(function, arguments)

    def _one_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items(self._top(), [key, value])

    def _group(self, use: Callable[[Any, list[Any]], None]) -> None:
        values = self._pop_to_mark()
        use(self._top(), values)

    def _one_append(self) -> None:
        value = self._pop()
        self._append_items(self._top(), [value])

    def _small_tuple(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self._tuple(values[::-1])


_OPCODES: Final[dict[bytes, Callable[[Machine], None]]] = {
    b"\x80": Machine._proto,
    b"\x95": lambda m: _drop(m._take(8)),  # FRAME: a hint for readers that buffer
    b"(": lambda m: m._push(_MARK),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"J": lambda m: m._push(_I32.unpack(m._take(4))[0]),
    b"K": lambda m: m._push(m._take(1)[0]),
    b"M": lambda m: m._push(_U16.unpack(m._take(2))[0]),
    b"\x8a": Machine._long1,
    b"G": lambda m: m._push(_F64.unpack(m._take(8))[0]),
    b"X": lambda m: m._push(m._text(m._counted(_U32))),
    b"\x8c": lambda m: m._push(m._text(m._take(m._take(1)[0]))),
    b"\x8d": lambda m: m._push(m._text(m._counted(_U64))),
    b"U": lambda m: m._push(m._text(m._take(m._take(1)[0]))),  # SHORT_BINSTRING: Python 2's str
    b"T": lambda m: m._push(m._text(m._counted(_U32))),  # BINSTRING
    b"C": lambda m: m._push(m._take(m._take(1)[0])),
    b"B": lambda m: m._push(m._counted(_U32)),
    b")": lambda m: m._tuple([]),
    b"\x85": lambda m: m._small_tuple(1),
    b"\x86": lambda m: m._small_tuple(2),
    b"\x87": lambda m: m._small_tuple(3),
    b"t": lambda m: m._tuple(m._pop_to_mark()),
    b"]": lambda m: m._push_container([]),
    b"l": lambda m: m._push_container(values := m._pop_to_mark(), values),
    b"a": Machine._one_append,
    b"e": lambda m: m._group(m._append_items),
    b"}": lambda m: m._push_container({}),
    b"s": Machine._one_item,
    b"u": lambda m: m._group(m._set_items),
    b"q": lambda m: m._memoize(m._take(1)[0]),
    b"r": lambda m: m._memoize(_U32.unpack(m._take(4))[0]),
    b"\x94": lambda m: m._memoize(len(m._memo)),
    b"h": lambda m: m._recall(m._take(1)[0]),
    b"j": lambda m: m._recall(_U32.unpack(m._take(4))[0]),
    b"c": lambda m: m._global(m._line(), m._line()),
    b"\x93": Machine._stack_global,
    b"R": Machine._reduce,
    b"\x81": Machine._reduce,  # NEWOBJ: class and arguments, as REDUCE has function and arguments
    b"b": Machine._build,
    b"Q": Machine._persistent,
}


def unpickle(data: bytes, where: str) -> tuple[Any, set[Foreign]]:
    """-> (the object, the unknown globals that the pickle names). Storages stay references."""
    machine = Machine(data, where)
    result = machine.run()
    if machine.end != len(data):
        raise ModelCorrupt(f"{where}: {len(data) - machine.end} bytes follow the end of the pickle")
    return result, machine.foreign
