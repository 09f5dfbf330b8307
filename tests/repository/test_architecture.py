"""The shape of the code: includes point down, files stay small, the library never prints or exits."""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from kosmos_edge import _core

ROOT = Path(__file__).resolve().parents[2]

# folder of csrc/ -> folders that its files may include from
BELOW = {
    "base": set(),
    "quant": {"base"},
    "format": {"base", "quant"},
    "image": {"base"},
    "text": {"base", "format"},
    "backend": {"base", "quant", "format"},
    "cpu": {"base", "quant", "format", "backend"},
    "cuda": {"base", "quant", "format", "backend"},
    "layers": {"base", "quant", "format", "backend"},
    "models": {"base", "quant", "format", "backend", "layers", "image", "text"},
    "engine": {"base", "quant", "format", "backend", "layers", "models", "image", "text"},
    "tasks": {"base", "format", "models", "engine", "text"},
    "capi": {"base", "models", "engine", "image", "text", "tasks"},
    "bindings": {"base", "quant", "format", "backend", "cpu", "layers", "models", "engine", "image", "text", "tasks"},
}
# An ISA object must not share inline functions with the rest: its sources see plain C headers and these files only.
ISA_INCLUDES = re.compile(r"cpu/(kernels\.h|kv_codes\.h|panels\.h|[a-z0-9_]+\.inl|vec_[a-z0-9_]+\.h)|quant/blocks\.h")
ISA_HEADERS = sorted((ROOT / "csrc" / "cpu").glob("isa_*.h"))
UNITS = sorted((ROOT / "csrc" / "cpu" / "units").glob("*.cpp"))
# package or module of kosmos_edge -> those that it may import (convert/ stands beside these, with imports of its own)
PYTHON_BELOW: dict[str, set[str]] = {
    "errors": set(),
    "checkout": set(),
    "machine": set(),
    "drawing_names": set(),
    "json_text": set(),
    "_native": {"checkout"},
    "sharing": set(),
    "targets": {"errors"},
    "options": {"_native", "errors"},
    "annotations": {"errors"},
    "marks": set(),
    "overlay": {"errors", "images", "marks"},
    "result_forms": {"annotations", "errors", "images", "overlay"},
    "results": {"annotations", "errors", "result_forms"},
    "files": {"errors", "sharing"},
    "images": {"_native", "errors", "files", "sharing"},
    "draw": {"errors", "images", "marks", "overlay", "results", "targets"},
    "documents": {"_native", "errors", "files", "images", "json_text", "results"},
    "integrations": {
        *("annotations", "documents", "errors", "hub", "images", "inference", "json_text", "loading", "model"),
        *("options", "results"),
    },
    "storage": set(),
    "urls": {"errors"},
    "pairs": {"errors"},
    "hub": {"_native", "errors", "storage", "targets"},
    "inference": {"_native", "errors", "images", "options", "results"},
    "isolation": {"_native", "errors", "files", "images", "inference", "options", "results"},
    "model": {"_native", "errors", "images", "inference", "options", "results"},
    "tools": {"errors", "model", "results"},
    "loading": {"_native", "errors", "hub", "inference", "isolation", "model", "options", "pairs"},
    "folders": {"annotations", "errors", "images", "inference", "json_text", "model", "results", "targets"},
    "apps": {
        *("draw", "errors", "evaluation", "files", "folders", "images", "inference", "json_text", "model", "options"),
        *("overlay", "results", "targets", "tools"),
    },
    "distributed": {
        *("_native", "errors", "folders", "images", "inference", "json_text", "loading", "model", "options", "results"),
        "targets",
    },
    "server": {"_native", "errors", "files", "images", "inference", "model", "options", "results", "tools", "urls"},
    "bench": {"_native", "errors", "images", "inference", "machine", "model", "results"},
    "quality": {"_native", "errors", "hub", "images", "inference", "loading", "model", "results"},
    "calibration": {"_native", "errors", "inference", "model", "quality"},
    "evaluation": {"errors", "images", "inference", "quality", "results", "targets"},
}
PROGRAMS = {"", "__main__", "cli", "native"}  # the package itself and what runs as a command: they may import all
EMULATE = ROOT / "tests" / "emulate"
SOURCES = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".cpp", ".inl", ".cu", ".cuh"})


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(encoding="utf-8"), re.M)


def test_there_is_something_to_check():
    assert len(SOURCES) > 30
    assert {p.relative_to(ROOT / "csrc").parts[0] for p in SOURCES} == set(BELOW)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "csrc")))
def test_includes_point_down(path):
    folder = path.relative_to(ROOT / "csrc").parts[0]
    for name in includes(path):
        assert (ROOT / "csrc" / name).exists(), f"{path.name} includes {name} by another path than from csrc/"
        other = name.split("/")[0]
        assert other == folder or other in BELOW[folder], f"{folder}/ must not include {name}"


def test_emulated_devices_are_outside_of_the_library():
    """tests/emulate includes csrc/cuda and itself; csrc/ has no word of it in code."""
    emulation = sorted(p for p in EMULATE.rglob("*") if p.suffix in {".h", ".cpp", ".cuh"})
    assert len(emulation) >= 7
    for path in emulation:
        for name in includes(path):
            own = EMULATE / name if name.startswith("cuda/") else EMULATE.parent / name
            assert own.exists() or (name.startswith("cuda/") and (ROOT / "csrc" / name).exists()), (path.name, name)
    for path in SOURCES:
        assert "emulat" not in re.sub(r"//.*", "", path.read_text(encoding="utf-8")).lower(), path


def test_a_prompt_is_read_once_per_call():
    """What computes takes a Prompt and no text; an answer and a ranking make theirs in one place each."""
    texts = {str(p.relative_to(ROOT / "csrc")): p.read_text(encoding="utf-8") for p in SOURCES}
    builders = {name for name, text in texts.items() if re.search(r"\bbuild_prompt\(", text)}
    assert builders == {"engine/prompt.h", "engine/prompt.cpp", "engine/engine.cpp"}
    callers = {n: len(re.findall(r"engine\.prompt\(", t)) for n, t in texts.items() if n.startswith(("tasks", "capi"))}
    assert {name: count for name, count in callers.items() if count} == {"tasks/run.cpp": 1, "tasks/rank.cpp": 1}
    for header in ("engine/engine.h", "engine/batch.h", "engine/sequence.h", "engine/generate.h"):
        for function in ("generate", "score", "logits", "add", "Sequence"):
            for parameters in re.findall(rf"\b{function}\(([^;]*?)\)[^;]*;", texts[header]):
                assert "vector<Segment>& segments" not in parameters


def test_there_are_kernels_to_check():
    assert len(ISA_HEADERS) >= 6 and len(UNITS) >= 10


@pytest.mark.parametrize("path", ISA_HEADERS + UNITS, ids=lambda p: p.name)
def test_isa_sources_include_no_shared_inline_code(path):
    seen, todo = set(), [path]
    while todo:
        p = todo.pop()
        for name in includes(p):
            assert ISA_INCLUDES.fullmatch(name), f"{p.name}, compiled for one ISA, includes {name}"
            if name not in seen:
                seen.add(name)
                todo.append(ROOT / "csrc" / name)
        for header in re.findall(r"^\s*#\s*include\s+<([^>]+)>", p.read_text(encoding="utf-8"), re.M):
            assert header.endswith(".h"), f"{p.name}, compiled for one ISA, includes the C++ header <{header}>"


def test_files_stay_under_600_lines():
    suffixes = {".h", ".cpp", ".inl", ".py", ".cu", ".cuh", ".metal", ".mm"}
    folders = ["csrc", "kosmos_edge", "convert", "tests", "bench", "tools", "examples"]
    files = [p for f in folders for p in (ROOT / f).rglob("*") if p.suffix in suffixes]
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text(encoding="utf-8").splitlines())) > 600}
    assert len(files) > 50
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "csrc")))
def test_library_never_prints_or_exits(path):
    text = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    found = re.search(r"\b(printf|fprintf|puts|abort|_?exit|std::cout|std::cerr|assert|signal|setlocale)\s*[(<]", text)
    assert not found, f"{path.name}: {found.group(0)}"


def test_no_march_native_and_no_device_ifdefs():
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "march=native" not in cmake
    for p in SOURCES:
        assert not re.search(r"#\s*if.*\bUSE_(CUDA|METAL)\b", p.read_text(encoding="utf-8")), p


@cache
def python_imports() -> dict[str, set[str]]:
    """Module of kosmos_edge -> those that it imports, when it is imported, later, or for its types alone."""
    package = ROOT / "kosmos_edge"
    files = {p.relative_to(package).with_suffix(""): p for p in package.rglob("*.py") if "convert" not in p.parts}
    names = {".".join(part for part in path.parts if part != "__init__"): file for path, file in files.items()}
    found = defaultdict(set)
    for name, file in names.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported = [f"{node.module}.{alias.name}" for alias in node.names]  # a module, or a name in one
            else:
                continue
            for full in (i for i in imported if i.startswith("kosmos_edge.")):
                inner = full.removeprefix("kosmos_edge.")
                module = inner if inner in names else inner.rpartition(".")[0]
                if module in names and module not in ("", name):
                    found[name].add(module)
    return found


def reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    seen, todo = set(), [start]
    while todo:
        for module in imports.get(todo.pop(), set()) - seen:
            seen.add(module)
            todo.append(module)
    return seen


def test_python_imports_are_read():
    imports = python_imports()
    assert len(imports) > 30
    assert {"errors"} <= set().union(*imports.values())


def test_python_modules_import_in_no_circle():
    imports = python_imports()
    circles = {name for name in imports if name in reachable(name, imports)}
    assert not circles, f"these modules import each other: {sorted(circles)}"


def test_python_imports_point_down():
    upward = {
        (name, module)
        for name, imported in python_imports().items()
        if (below := PYTHON_BELOW.get(name.split(".")[0])) is not None
        for module in imported
        if module.split(".")[0] not in {name.split(".")[0], *below}
    }
    assert not upward, f"(module, what it must not import): {sorted(upward)}"


def test_every_python_package_has_its_place():
    tops = {name.split(".")[0] for name in python_imports()}
    assert tops | {"errors"} <= set(PYTHON_BELOW) | PROGRAMS
    assert set(PYTHON_BELOW) <= {p.stem for p in (ROOT / "kosmos_edge").iterdir()}


# Prose that says what published code something is written after is no dependency on it.
CODE_ONLY = re.compile(r"//.*|\"\"\".*?\"\"\"|(?m:#.*$)", re.S)


def test_a_model_is_named_in_its_own_files_and_rows_alone():
    names = _core.testing.model_schemas()
    assert set(names) >= {"kosmos1", "kosmos2"}
    rows = {"csrc/models/registry.cpp", "convert/models/__init__.py"}
    hub = {f"kosmos_edge/hub/{file}.py" for file in ("__init__", "models", "download")}  # knows what is published
    files = [p for f in ("csrc", "kosmos_edge", "convert") for p in (ROOT / f).rglob("*")]
    sources = [p for p in files if p.suffix in {".h", ".cpp", ".inl", ".cu", ".cuh", ".py", ".pyi"}]
    assert len(sources) > 150
    for path in sources:
        name = str(path.relative_to(ROOT))
        text = path.read_text(encoding="utf-8")
        code = re.sub(r"//.*", "", text) if name.startswith("csrc") else CODE_ONLY.sub("", text)
        for model in names:
            if name not in rows | hub and path.stem not in names:  # one model's file may build on another's
                assert model not in code.lower(), f"{name} knows {model}"
