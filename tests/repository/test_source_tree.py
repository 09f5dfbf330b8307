"""Python started in the root of a source tree: its kosmos_edge/ is used, with the native part that is installed."""

import os
import shutil
import subprocess
import sys
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

from kosmos_edge import _core, checkout

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "csrc").is_dir():
    pytest.skip("the sources are not beside the tests", allow_module_level=True)


def make_tree(folder: Path) -> Path:
    """A source tree of nearly nothing. -> its package"""
    for name in (str(checkout.MARK), "csrc/base/a.h", "csrc/base/a.txt", "include/kosmos.h", "kosmos_edge/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"// {name}\n")
    return folder / "kosmos_edge"


def install(folder: Path) -> Path:
    """A folder of packages with a native module. -> the package"""
    package = folder / "kosmos_edge"
    package.mkdir(parents=True)
    (package / f"_core{EXTENSION_SUFFIXES[0]}").touch()
    return package


def test_a_source_package_gets_the_root_and_the_installed_package(tmp_path: Path) -> None:
    package, installed = make_tree(tmp_path / "tree"), install(tmp_path / "site-packages")
    path = [str(package)]
    checkout.complete(path, [str(tmp_path / "tree"), str(tmp_path / "nothing"), str(installed.parent)])
    assert path == [str(package), str(tmp_path / "tree"), str(installed)]


def test_without_an_installed_package_nothing_is_made_up(tmp_path: Path) -> None:
    package = make_tree(tmp_path)
    path = [str(package)]
    checkout.complete(path, [str(tmp_path)])
    assert path == [str(package), str(tmp_path)]


def test_a_native_module_among_the_sources_is_the_one(tmp_path: Path) -> None:
    package, installed = make_tree(tmp_path / "tree"), install(tmp_path / "site-packages")
    (package / f"_core{EXTENSION_SUFFIXES[0]}").touch()
    path = [str(package)]
    checkout.complete(path, [str(installed.parent)])
    assert path == [str(package), str(tmp_path / "tree")]


def test_only_a_source_tree_is_one(tmp_path: Path) -> None:
    installed = install(tmp_path / "site-packages")
    (tmp_path / "site-packages" / "csrc").mkdir()  # some package brings a folder of that name
    assert checkout.find_root(installed) is None
    assert checkout.find_root(make_tree(tmp_path / "tree")) == tmp_path / "tree"


def test_the_native_module_was_built_from_these_sources() -> None:
    assert _core.sources_id() == checkout.sources_id(ROOT), "csrc/ changed since: build and install again"


def native(file: Path, **attributes: object) -> ModuleType:
    module = ModuleType(checkout.NATIVE)
    module.__file__ = str(file)
    vars(module).update(attributes)
    return module


def test_sources_that_changed_are_told_in_one_line(tmp_path: Path) -> None:
    package, installed = make_tree(tmp_path / "tree"), install(tmp_path / "site-packages")
    file = installed / f"_core{EXTENSION_SUFFIXES[0]}"
    for change, fits in (("csrc/base/a.txt", True), ("csrc/base/a.h", False), ("include/kosmos.h", False)):
        built = native(file, sources_id=partial(str, checkout.sources_id(tmp_path / "tree")))
        checkout.check_native(built, package)
        (tmp_path / "tree" / change).write_text("// other")
        if fits:  # no part of the build
            checkout.check_native(built, package)
            continue
        with pytest.raises(ImportError, match=r"other sources than those in .*pip install") as raised:
            checkout.check_native(built, package)
        assert "\n" not in str(raised.value) and raised.value.name == checkout.NATIVE
    with pytest.raises(ImportError, match="other sources"):  # built before there was such an id
        checkout.check_native(native(file), package)
    checkout.check_native(native(file), installed)  # not in a source tree: there is nothing to compare
    checkout.check_native(native(package / "_core.so"), package)  # built into the sources by their owner


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a copy of this source tree without anything built, a folder of packages with the native part and no more)"""
    folder = tmp_path_factory.mktemp("source tree")
    tree, site = folder / "tree", folder / "site-packages"
    unbuilt = shutil.ignore_patterns("*.so*", "lib", "include", "convert", "__pycache__")
    shutil.copytree(ROOT / "kosmos_edge", tree / "kosmos_edge", ignore=unbuilt)
    for name in ("csrc", "include", "convert"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = Path(str(_core.__file__))
    (site / "kosmos_edge").mkdir(parents=True)
    for name in (built.name, "lib", "include"):
        if (built.parent / name).exists():
            (site / "kosmos_edge" / name).symlink_to(built.parent / name)
    return tree, site


def run(copy: tuple[Path, Path], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in the root of the tree, as a person starts it."""
    tree, site = copy
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment["PYTHONPATH"] = str(site)
    return subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True)


def test_python_in_the_root_runs_the_sources_with_the_installed_native_part(copy: tuple[Path, Path]) -> None:
    tree, site = copy
    program = (
        "import kosmos_edge, kosmos_edge.convert, kosmos_edge.model; from kosmos_edge import _core, hub;"
        "print(kosmos_edge.model.__file__, kosmos_edge.convert.__file__, _core.__file__, hub.nano_path(), sep='\\n')"
    )
    done = run(copy, "-c", program)
    assert done.returncode == 0, done.stderr
    built = site / "kosmos_edge" / Path(str(_core.__file__)).name
    here = [tree / "kosmos_edge/model.py", tree / "convert/__init__.py", built]
    assert done.stdout.splitlines() == [*map(str, here), str(tree / "kosmos_edge/data/nano-q4_k_m.gguf")]


def test_the_command_line_in_the_root_answers(copy: tuple[Path, Path]) -> None:
    picture = ROOT / "examples" / "scene-00000.png"
    done = run(copy, "-m", "kosmos_edge", "caption", str(picture), "--offline", "--no-boxes")
    assert (done.returncode, done.stdout) == (0, "a Christmas tree to the left of a truck.\n"), done.stderr
    worker = run(copy, "-m", "kosmos_edge", "caption", str(picture), "--offline", "--no-boxes", "--isolation=process")
    assert (worker.returncode, worker.stdout) == (0, done.stdout), worker.stderr


def test_the_command_line_tells_other_sources_in_one_line(copy: tuple[Path, Path], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(copy[0], tree)
    with (tree / checkout.MARK).open("a") as file:
        file.write("// changed\n")
    done = run((tree, copy[1]), "-m", "kosmos_edge", "caption", str(ROOT / "examples" / "scene-00000.png"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("kosmos-edge: error: ") and done.stderr.endswith(
        "run `pip install .` (or `./dev build`) there again\n"
    )
    assert done.stderr.count("\n") == 1


def test_a_missing_native_part_is_told_in_one_line(copy: tuple[Path, Path], tmp_path: Path) -> None:
    done = run((copy[0], tmp_path), "-S", "-c", "import kosmos_edge._native")  # -S: no site-packages at all
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "kosmos_edge._core" in last and "is missing" in last and "pip install ." in last
