# Patterns for nanobind's stubgen, see its documentation. tools/stubs.py uses them.

kosmos_edge._core.__prefix__:
    # Types of the native module, written by ./dev stubs. No API: use kosmos_edge. It raises the classes of its errors.py.

# The class has a method of that name.
kosmos_edge._core.Tokenizer.bytes:
    \from builtins import bytes as _bytes
    def bytes(self, id: int) -> _bytes: ...

# What only tests need has no types.
kosmos_edge._core.testing:
    \from types import ModuleType
    testing: ModuleType
