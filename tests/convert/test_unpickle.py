"""The pickle machine: plain data comes out right, and no payload makes it import, call or open anything."""

import itertools
import pickle
import random
import struct
import sys

import pytest
from helpers.convert_checkpoint import (
    Raw,
    convert_state,
    convert_torch_state,
    convert_write_fairseq,
    convert_zip_bytes,
    op_build,
    op_call,
    op_global,
    op_ordered,
    op_pickle,
    op_storage,
    op_tensor,
    op_value,
)

from kosmos_edge.convert import convert
from kosmos_edge.convert.sources import unpickle as machine
from kosmos_edge.convert.sources.unpickle import Foreign, Record, Storage, Tensor, unpickle
from kosmos_edge.errors import ModelCorrupt

WATCH: dict[str, list[tuple[str, tuple[object, ...]]] | None] = {"events": None}
LOUD = ("import", "exec", "compile", "open", "os.", "subprocess.", "socket.", "ctypes.", "pickle.", "code.", "shutil.")


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    events = WATCH["events"]
    if events is not None and event.startswith(LOUD):
        events.append((event, arguments))


sys.addaudithook(_hook)  # cannot be removed again: silent unless WATCH says otherwise


def watched(data: bytes):
    """unpickle(data), with proof that nothing was imported, executed or opened meanwhile."""
    WATCH["events"] = events = []
    try:
        return unpickle(data, "test")
    finally:
        WATCH["events"] = None
        assert events == []


def value_of(opcodes: bytes):
    return watched(b"\x80\x02" + opcodes + b".")[0]


def refused(opcodes: bytes, match: str) -> None:
    with pytest.raises(ModelCorrupt, match=match):
        value_of(opcodes)


# ---- data


def test_the_hook_sees_what_it_should():
    WATCH["events"] = events = []
    try:
        pickle.loads(op_pickle(op_call(op_global("builtins", "eval"), "1+1")))
    finally:
        WATCH["events"] = None
    assert {"pickle.find_class", "exec"} <= {event for event, _ in events}


def random_value(source: random.Random, depth: int):
    kind = source.randrange(10 if depth else 7)
    if kind == 0:
        return source.choice([None, True, False])
    if kind == 1:
        return source.randrange(-(1 << source.randrange(1, 100)), 1 << source.randrange(1, 100))
    if kind == 2:
        return source.choice([0.0, -1.5, 1e300, float("inf"), source.random()])
    if kind < 6:
        return "".join(source.choice("aß▁画🙂\n\\'\ud800") for _ in range(source.randrange(0, 300, 7)))
    if kind == 6:
        return source.choice([255, 256, 65535, 65536, -1, 1 << 31, -(1 << 31)])
    size = source.randrange(5)
    if kind == 7:
        return [random_value(source, depth - 1) for _ in range(size)]
    if kind == 8:
        return tuple(random_value(source, depth - 1) for _ in range(size))
    return {source.choice([f"k{i}", i, None]): random_value(source, depth - 1) for i in range(size)}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_equals_what_pickle_gives(protocol):
    source = random.Random(protocol)
    for _ in range(300):
        value = random_value(source, 4)
        assert watched(pickle.dumps(value, protocol)) == (value, set())
    shared = ["x" * 300]
    result, _ = watched(
        pickle.dumps([shared, shared, b"bytes"], protocol) if protocol > 2 else pickle.dumps([shared, shared], 2)
    )
    assert result[0] is result[1]


def test_tensors():
    value = value_of(op_value({"a": op_tensor("7", "F16", (2, 3), count=10, offset=4)}))
    assert value == {"a": Tensor(Storage("7", "F16", 10), 4, (2, 3))}
    assert value_of(op_tensor("0", "F32", (), count=1)) == Tensor(Storage("0", "F32", 1), 0, ())
    assert value_of(op_tensor("0", "F32", (1, 5), count=5, strides=(99, 1))).shape == (1, 5)  # a stride of no meaning
    assert value_of(op_tensor("0", "F32", (0, 5), count=0, strides=(7, 9))).shape == (0, 5)
    assert value_of(op_call(op_global("torch", "Size"), (2, 3))) == (2, 3)


def test_unknown_classes_become_inert_records():
    namespace = op_build(op_call(op_global("argparse", "Namespace"), opcode=b"\x81"), {"lr": [0.5]})
    value, foreign = watched(op_pickle([namespace]))
    assert isinstance(value[0], Record)
    assert (value[0].kind, value[0].arguments, value[0].state) == (Foreign("argparse", "Namespace"), (), {"lr": [0.5]})
    assert foreign == {Foreign("argparse", "Namespace")}
    items = value_of(op_call(op_global("collections", "defaultdict"), op_global("a", "b")) + b"(K\x01K\x02u](K\x03ea")
    assert items.items == [1, 2, [3]]
    # as omegaconf writes settings: types of Python as references, enumerations by getattr
    types = {"ref_type": op_global("typing", "Any"), "key_type": op_global("builtins", "str")}
    choice = op_call(op_global("builtins", "getattr"), op_global("fairseq.dataclass", "DDP_BACKEND"), "c10d")
    value, _ = watched(op_pickle({"metadata": types, "backend": choice}))
    assert value["metadata"]["key_type"] == Foreign("builtins", "str")
    assert value["backend"].arguments == (Foreign("fairseq.dataclass", "DDP_BACKEND"), "c10d")


# ---- attacks: globals

DANGEROUS = [
    "os system", "os popen", "os execv", "posix system", "nt system", "os.path join", "subprocess Popen",
    "subprocess check_output", "builtins eval", "builtins exec", "builtins __import__", "builtins open",
    "builtins compile", "builtins map", "builtins globals", "builtins breakpoint", "builtins input", "__builtin__ eval",
    "__builtin__ file", "__builtin__ apply", "importlib import_module", "importlib.util spec_from_file_location",
    "runpy run_path", "runpy _run_code", "pty spawn", "socket create_connection", "shutil rmtree", "ctypes CDLL",
    "ctypes.util find_library", "code InteractiveInterpreter", "pickle loads", "_pickle loads", "cPickle loads",
    "marshal loads", "operator attrgetter", "operator methodcaller",
    "_operator methodcaller", "sys modules", "sys exit", "timeit timeit", "cProfile run", "profile run", "pdb run",
    "bdb Bdb", "io open", "_io FileIO", "asyncio run", "asyncio.unix_events _UnixSubprocessTransport",
    "webbrowser open",
    "urllib.request urlopen", "http.client HTTPConnection", "signal raise_signal", "gc get_objects", "threading Thread",
    "multiprocessing.util spawnv_passfds", "zipimport zipimporter", "pip main", "venv create", "atexit register",
    "_thread start_new_thread", "inspect getattr_static", "pkgutil resolve_name", "commands getoutput",
    "torch.storage _load_from_bytes", "ssl SSLContext", "imp load_source",
]  # fmt: skip
FOREIGN = [
    "builtins getattr", "__builtin__ getattr", "builtins type", "builtins set", "functools partial", "functools reduce",
    "torch load", "torch.hub load", "torch.jit load", "torch.serialization load", "numpy load",
    "numpy.testing._private.utils runstring", "torch.utils._config_module ConfigModule.load_config", "yaml unsafe_load",
    "joblib load", "dill loads", "cloudpickle loads", "lib2to3.pgen2.grammar Grammar.loadGrammar",
    "idlelib.run Executive",
    "distutils.file_util write_file", "antigravity fly", "this s", "collections OrderedDict.__init__.__globals__",
    "collections.OrderedDict __class__", "torch._utils _rebuild_tensor_v2.__globals__", "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_sparse_tensor", "torch._dynamo.guards GuardBuilder.get", "kosmos_edge.convert convert",
    "test_unpickle watched", "__main__ x", " os system", "Os system", "os\u200b system",
]  # fmt: skip


def by_global(name: str) -> bytes:
    module, _, attribute = name.rpartition(" ")
    return op_global(module, attribute)


def by_stack_global(name: str) -> bytes:
    module, _, attribute = name.rpartition(" ")
    return op_value(module) + op_value(attribute) + b"\x93"


@pytest.mark.parametrize("name", DANGEROUS)
def test_dangerous_globals_are_refused(name):
    for make, opcode in itertools.product((by_global, by_stack_global), (b"R", b"\x81")):
        refused(make(name) + op_value(("touch canary",)) + opcode, "not to be trusted")
        refused(make(name), "not to be trusted")  # even unused
        refused(op_value({"weights": Raw(make(name))}), "not to be trusted")


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_globals_are_never_looked_up(name):
    for make, opcode in itertools.product((by_global, by_stack_global), (b"R", b"\x81")):
        value = value_of(make(name) + op_value(("touch canary",)) + opcode)
        assert isinstance(value, Record) and value.arguments == ("touch canary",)
        refused(make(name) + op_value(["touch canary"]) + opcode, "not a tuple")
        # what a foreign global "returns" is inert too
        refused(make(name) + b")R" + op_value(("again",)) + opcode, "is called")
    built = value_of(op_build(Raw(by_global(name) + b")R"), {"__setstate__": 1, "__class__": 2, "__reduce__": 3}))
    assert isinstance(built, Record)


def test_real_payloads_do_not_run(tmp_path):
    canary = tmp_path / "canary"

    class System:
        def __reduce__(self):
            import os

            return os.system, (f"touch {canary}",)

    class Eval:
        def __reduce__(self):
            return eval, (f"open({str(canary)!r}, 'w').close()",)

    class Nested:
        def __reduce__(self):
            return getattr, (System(), "__class__")

    for payload, protocol in itertools.product((System(), [Eval()], {"a": Nested()}, (Eval(), System())), (2, 3, 4, 5)):
        data = pickle.dumps(payload, protocol)
        with pytest.raises(ModelCorrupt, match="not to be trusted"):
            watched(data)
        assert not canary.exists()
        pickle.loads(data)  # the payloads are real ones
        assert canary.exists()
        canary.unlink()


# ---- attacks: opcodes, stack, memo

OPCODES_REFUSED = {
    "INST": b"ios\nsystem\n", "OBJ": b"(cos\nsystem\no", "EXT1": b"\x82\x01", "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00", "PERSID": b"Pstorage\n", "NEWOBJ_EX": b"N)}\x92", "GET": b"g0\n", "PUT": b"Np0\n",
    "INT": b"I1\n", "LONG": b"L1L\n", "FLOAT": b"F1\n", "STRING": b"S'a'\n", "UNICODE": b"Va\n", "DUP": b"N2",
    "POP": b"N0",
    "POP_MARK": b"(N1", "DICT": b"(d", "LONG4": b"\x8b\x00\x00\x00\x7f", "BYTEARRAY8": b"\x96" + bytes(8),
    "NEXT_BUFFER": b"\x97", "READONLY_BUFFER": b"\x98", "EMPTY_SET": b"\x8f", "ADDITEMS": b"\x8f(N\x90",
    "FROZENSET": b"(\x91", "BINBYTES8": b"\x8e" + bytes(8), "unassigned": b"\xff", "NUL": b"\0",
}  # fmt: skip


@pytest.mark.parametrize("name", OPCODES_REFUSED)
def test_opcodes_that_checkpoints_do_not_use(name):
    refused(OPCODES_REFUSED[name], "opcode|to be trusted")


TENSOR = op_tensor("0", "F32", (2, 2))
REBUILD = op_global("torch._utils", "_rebuild_tensor_v2")
STORAGE_REF = op_storage("0", "F32", 4)
FLOATS = op_global("torch", "FloatStorage")
PARAMETER = op_global("torch._utils", "_rebuild_parameter")


def reference(kind, key, *view) -> bytes:
    """A persistent id of four values with the pieces given."""
    return op_value(("storage", kind, key, "cpu", 4, *view)) + b"Q"


MALFORMED = {
    "empty stack": (b"R", "stack is empty"),
    "no mark": (b"Nt", "no mark"),
    "mark as value": (b"(\x85", "mark where a value"),
    "stop on mark": (b"(", "mark where a value"),
    "memo of nothing": (b"q\x00", "no value"),
    "memo unset": (b"h\x07", "never set"),
    "memo of a mark": (b"(q\x00", "no value"),
    "left over": (b"NN", "left on the stack"),
    "call a tensor": (TENSOR + b")R", "is called"),
    "call a storage class": (op_global("torch", "FloatStorage") + b")R", "FloatStorage is called"),
    "call a number": (b"K\x01)R", "int is called"),
    "call text": (op_value("os.system") + b")R", "str is called"),
    "rebuild of nothing": (op_call(REBUILD), "storage, offset"),
    "rebuild of text": (op_call(REBUILD, "storage", 0, (1,), (1,)), "storage, offset"),
    "rebuild twice": (op_call(REBUILD, TENSOR, 0, (1,), (1,)), "storage, offset"),
    "state of a tensor": (op_build(TENSOR, {"__class__": "x"}), "state is given to a Tensor"),
    "state of a list": (op_build(Raw(b"]"), {"append": 1}), "state is given to a list"),
    "state of a global": (op_build(op_global("torch", "FloatStorage"), {}), "state is given"),
    "item of a tensor": (TENSOR + b"K\x00K\x01s", "set in a Tensor"),
    "item of a list": (b"]K\x00K\x01s", "set in a list"),
    "items of None": (b"N(K\x00K\x01u", "set in a NoneType"),
    "append to a dict": (b"}K\x00a", "appended to a dict"),
    "append to a tuple": (b")K\x00a", "appended to a tuple"),
    "half an item": (b"}(K\x00u", "without a value"),
    "tuple as key": (b"})K\x00s", "key of type tuple"),
    "list as key": (b"}]K\x00s", "key of type list"),
    "float as key": (b"}" + op_value(0.5) + b"Ns", "key of type float"),
    "huge key": (b"}" + op_value(1 << 61) + b"Ns", "huge integer"),
    "record as key": (b"}" + op_call(op_global("a", "b")) + b"Ns", "key of type Record"),
    "ordered dict of arguments": (op_call(op_global("collections", "OrderedDict"), [("a", 1)]), "built empty"),
    "global of numbers": (b"K\x01K\x02\x93", "name is not text"),
    "global with a long name": (op_value("a" * 300) + op_value("b") + b"\x93", "name is not text"),
    "global without an end": (b"cos", "name without an end"),
    "protocol 6": (b"\x80\x06N", "protocol 6"),
    "text that is not UTF-8": (b"U\x01\xff", "not UTF-8"),
    "long text": (b"X\xff\xff\xff\xff", "4294967295 bytes expected"),
    "very long text": (b"\x8d" + b"\xff" * 8, "bytes expected"),
    "reference that is a string": (op_value("storage") + b"Q", "not a storage"),
    "reference of another kind": (op_value(("module", 1, 2, 3, 4)) + b"Q", "not a storage"),
    "reference too short": (op_value(("storage",)) + b"Q", "not a storage"),
    "reference with a view": (reference(FLOATS, "0", ("v", 0, 1)), "not a storage"),
    "storage of a name": (reference("FloatStorage", "0"), "unknown type"),
    "storage of a foreign class": (reference(op_global("torch", "Evil"), "0"), "unknown type"),
    "storage of a function": (reference(REBUILD, "0"), "unknown type"),
    "storage key of a number": (reference(FLOATS, 0), "malformed"),
    "storage of negative length": (op_storage("0", "F32", -1), "malformed"),
    "storage of true length": (op_storage("0", "F32", True), "malformed"),
    "storage of endless length": (op_storage("0", "F32", 1 << 70), "malformed"),
    "storage in two types": (op_value([STORAGE_REF, op_storage("0", "F16", 4)]), "in two ways"),
    "storage in two lengths": (op_value([STORAGE_REF, op_storage("0", "F32", 5)]), "in two ways"),
    "tensor past its storage": (op_tensor("0", "F32", (2, 2), count=3), "exceeds its storage"),
    "tensor offset past its storage": (op_tensor("0", "F32", (2, 2), count=4, offset=1), "exceeds its storage"),
    "negative offset": (op_tensor("0", "F32", (2, 2), offset=-1), "non-negative"),
    "negative shape": (op_tensor("0", "F32", (2, -2), count=4, strides=(2, 1)), "non-negative"),
    "shape of true": (op_tensor("0", "F32", (True, 2), count=4, strides=(2, 1)), "non-negative"),
    "shape of text": (op_call(REBUILD, STORAGE_REF, 0, ("2",), (1,)), "non-negative"),
    "shape as a list": (op_call(REBUILD, STORAGE_REF, 0, [2], (1,)), "tuples"),
    "nine dimensions": (op_tensor("0", "F32", (1,) * 9), "at most 8"),
    "shape whose product wraps": (op_tensor("0", "F32", (1 << 32, 1 << 32), count=4), "exceeds its storage"),
    "transposed": (op_tensor("0", "F32", (2, 3), count=6, strides=(1, 2)), "contiguous"),
    "expanded": (op_tensor("0", "F32", (1000, 1000), count=1, strides=(0, 0)), "contiguous"),
    "fewer strides": (op_tensor("0", "F32", (2, 2), strides=(1,)), "one length"),
    "parameter of text": (op_call(PARAMETER, "x", True, None), "tensor, requires_grad"),
    "size of numbers": (op_call(op_global("torch", "Size"), 1, 2), "one tuple"),
    "deep tuples": (b")" + b"\x85" * 1000, "levels of nesting"),
    "deep lists": (b"]" * 1000 + b"a" * 999, "levels of nesting"),
    "deep dicts": (b"}" + b"}K\x00" * 0 + b"K\x00}" * 1000 + b"s" * 1000, "levels of nesting"),
    "deep records": (by_global("a b") * 1000 + b")R" + b"\x85R" * 999, "levels of nesting"),
    "deep states": (op_call(op_global("a", "b")) * 1000 + b"b" * 999, "levels of nesting"),
    "a list in itself, often": (b"]q\x00" + b"h\x00a" * 1000, "levels of nesting"),
    "marks without end": (b"(" * 200_000, "on the stack"),
    "values without end": (b"N" * 200_000, "on the stack"),
    "opcodes without end": (b"\x80\x02" * 2_000_001, "opcodes"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_programs(name):
    opcodes, match = MALFORMED[name]
    refused(bytes(opcodes), match)


def test_self_containing_values_are_data():
    value = value_of(b"]q\x00h\x00a")
    assert value[0] is value
    value = value_of(b"}q\x00K\x01h\x00s")
    assert value[1] is value


def test_memo_bombs_cost_nothing():
    laughs = b"]q\x00" + b"".join(
        b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(30)
    )
    assert len(value_of(b"(" + laughs + b"t")) == 31
    assert value_of(b"Nr\xff\xff\xff\xff") is None  # a huge index is a key, not a size
    refused(b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(machine.MAX_MEMO + 1)), "memo entries")


def test_size_limit():
    with pytest.raises(ModelCorrupt, match="at most"):
        watched(bytes(machine.MAX_PICKLE_BYTES + 1))


def test_bytes_after_the_end():
    with pytest.raises(ModelCorrupt, match="follow the end"):
        watched(op_pickle(None) + b"cos\nsystem\n.")


def sample() -> bytes:
    tensors, _ = convert_torch_state({"a": ((2, 3), bytes(24)), "b": ((4,), bytes(16))})
    args = op_build(op_call(op_global("argparse", "Namespace"), opcode=b"\x81"), {"lr": [0.5, 7, -9, 1 << 40]})
    return op_pickle({"model": op_ordered(tensors), "args": args, "x": (None, True, "text"), "y": [1, 2]})


def test_every_truncation_is_an_error():
    data = sample()
    watched(data)
    for size in range(len(data)):
        with pytest.raises(ModelCorrupt):
            watched(data[:size])


def test_mutants_give_data_or_a_typed_error():
    source = random.Random(5)
    good = [
        sample(),
        pickle.dumps({"a": [1, (2.5, "x" * 20)], "b": {}}, 4),
        op_pickle(op_call(op_global("os", "system"), "x")),
    ]
    accepted = 0
    for _ in range(6000):
        data = bytearray(source.choice(good))
        for _ in range(source.randrange(1, 5)):
            at = source.randrange(len(data))
            action = source.randrange(4)
            if action == 0:
                data[at] = source.randrange(256)
            elif action == 1:
                data[at] ^= 1 << source.randrange(8)
            elif action == 2:
                del data[at : at + source.randrange(1, 9)]
            else:
                data[at:at] = source.choice(good)[at % 20 : at % 20 + source.randrange(1, 30)]
        try:
            watched(bytes(data))
            accepted += 1
        except ModelCorrupt:
            pass
    assert accepted > 100  # the mutants reach deep


# ---- whole files


def test_a_malicious_checkpoint_runs_nothing(tmp_path):
    """A good kosmos-2.pt with a payload beside the weights is refused; without it it converts."""
    state = convert_state(layers=1, vision_layers=1)
    good = convert_write_fairseq(tmp_path / "good", state)
    convert(good, tmp_path / "good.gguf")
    canary = tmp_path / "canary"
    tensors, records = convert_torch_state({k: v for k, v in state.items()})
    for i, (module, name) in enumerate([("os", "system"), ("builtins", "exec"), ("torch.storage", "_load_from_bytes")]):
        payload = op_call(op_global(module, name), f"touch {canary}")
        bad = convert_write_fairseq(tmp_path / f"bad{i}", state)
        convert_zip_bytes(bad / "kosmos-2.pt", op_pickle({"extra": payload, "model": op_ordered(tensors)}), records)
        WATCH["events"] = events = []
        try:
            with pytest.raises(ModelCorrupt, match="not to be trusted"):
                convert(bad, tmp_path / "bad.gguf")
        finally:
            WATCH["events"] = None
        assert {event for event, _ in events} <= {"open", "os.listdir", "os.scandir"}, events
        assert all(isinstance(what[0], int) or str(what[0]).startswith(str(bad)) for _, what in events), events
        assert not canary.exists() and not (tmp_path / "bad.gguf").exists()


def test_a_dict_of_tensors_may_not_name_foreign_classes(tmp_path):
    """What is odd but harmless in fairseq's file has no place in pytorch_model.bin."""
    from helpers.convert_checkpoint import convert_write_bin

    state = convert_state(layers=1, vision_layers=1)
    folder = convert_write_bin(tmp_path / "bin", state)
    tensors, records = convert_torch_state(state)
    convert_zip_bytes(
        folder / "pytorch_model.bin",
        op_pickle({**tensors, "x": op_call(op_global("torch.hub", "load"), "evil")}),
        records,
    )
    with pytest.raises(ModelCorrupt, match=r"needs no torch\.hub\.load"):
        convert(folder, tmp_path / "a.gguf")
