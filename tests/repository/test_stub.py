"""kosmos_edge/_core.pyi is what tools/stubs.py makes of the native module."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

for needed in ("nanobind", "ruff"):
    pytest.importorskip(needed)

TOOL = Path(__file__).resolve().parents[2] / "tools" / "stubs.py"
if not TOOL.exists():
    pytest.skip("the sources are not beside the tests", allow_module_level=True)


@pytest.fixture(scope="module")
def stubs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stubs", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stub_is_what_the_native_module_gives(stubs: ModuleType) -> None:
    assert stubs.generate() == stubs.STUB.read_text(encoding="utf-8"), "run ./dev stubs"


def test_constants_become_a_class(stubs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sizes")
    module.MOST, module.SHARE = 4, 0.5  # type: ignore[attr-defined]
    monkeypatch.setattr(stubs._core, "sizes", module, raising=False)
    assert stubs.constants("sizes") == "\nclass sizes:\n    MOST: int\n    SHARE: float\n"
    module.call = print  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="more than constants"):
        stubs.constants("sizes")
