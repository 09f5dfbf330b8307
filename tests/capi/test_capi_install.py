"""The C library as a product: what it exports and imports, how it is installed, and that a C program finds it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import capi
from helpers.capi import ROOT
from PIL import Image

import kosmos_edge
from kosmos_edge.errors import KosmosError
from kosmos_edge.native import native_paths

NANO = ROOT / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")


def needs(*programs: str):
    missing = [p for p in programs if shutil.which(p) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not here: {', '.join(missing)}")


def run(*command, **environment) -> str:
    out = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, env=os.environ | environment, timeout=300
    )
    assert out.returncode == 0, f"{command}\n{out.stdout}\n{out.stderr}"
    return out.stdout


def symbols(*flags: str) -> list[str]:
    """Names of the dynamic symbols, versions cut off."""
    lines = run("nm", "-D", *flags, capi.library_path()).splitlines()
    return [line.split()[-1].split("@")[0] for line in lines]


# ---- symbols


@linux
@needs("nm")
def test_only_kosmos_functions_are_exported():
    header = (ROOT / "include" / "kosmos.h").read_text(encoding="utf-8")
    expected = set(re.findall(r"KOSMOS_API [^;]*?\b(kosmos_\w+)\(", header))
    assert set(symbols("--defined-only")) - {"KOSMOS_0"} == expected


@linux
@needs("readelf")
def test_the_library_has_a_versioned_name_and_stays_loaded():
    dynamic = run("readelf", "-d", capi.library_path())
    assert f"[libkosmos_edge.so.{capi.lib().kosmos_abi_version()}]" in dynamic
    assert "NODELETE" in dynamic and "TEXTREL" not in dynamic
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    assert {n.split(".so")[0] for n in needed} <= {"libstdc++", "libm", "libgcc_s", "libc", "ld-linux-x86-64",
                                                  "ld-linux-aarch64", "libpthread"}  # fmt: skip


# ---- an installed prefix


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> Path:
    """`cmake --install` of the C library alone, out of the build folder that holds it."""
    if shutil.which("cmake") is None:
        pytest.skip("not here: cmake")
    build = capi.library_path().resolve().parent
    if not (build / "CMakeCache.txt").exists():
        pytest.skip("the C library does not lie in a build folder; the wheel's own copy is tested below")
    if "SKBUILD:" in (build / "CMakeCache.txt").read_text():
        pytest.skip("a wheel's build folder installs into wheels only")
    out = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", build, "--prefix", out, "--component", "capi")
    return out


@pytest.fixture(scope="module")
def ppm(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("picture") / "photo.ppm"
    with Image.open(sorted((ROOT / "examples").glob("*.png"))[0]) as opened:
        opened.convert("RGB").save(out)
    return out


def check_program(program: Path, ppm: Path, **environment) -> None:
    """It says what the Python package says."""
    lines = run(program, NANO, ppm, OMP_NUM_THREADS="1", **environment).splitlines()
    expected = kosmos_edge.load(NANO, threads=1).caption(ppm, ground=True)
    assert lines[0] == expected.text and expected.entities
    boxes = [(e.phrase, box.pixels) for e in expected.entities for box in e.boxes]
    assert lines[1:] == [f"{phrase}\t" + " ".join(f"{v:.1f}" for v in pixels) for phrase, pixels in boxes]
    out = subprocess.run([program, NANO, "missing.ppm"], capture_output=True, text=True, env=os.environ | environment)
    assert out.returncode == 1 and "missing.ppm" in out.stderr
    out = subprocess.run([program, "missing.gguf", ppm], capture_output=True, text=True, env=os.environ | environment)
    assert out.returncode == 1 and "no such file" in out.stderr


STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
# Without gdk-pixbuf; with it: tests/examples/test_c.py.
CAPTION = [ROOT / "examples" / "c" / name for name in ("caption.c", "picture_ppm.c")]


@linux
@needs("cc", "pkg-config")
def test_a_c_program_finds_the_installed_library_with_pkg_config(prefix, ppm, tmp_path):
    libraries = sorted(prefix.rglob("libkosmos_edge.so"))[0].parent
    flags = run("pkg-config", "--cflags", "--libs", "kosmos-edge", PKG_CONFIG_PATH=str(libraries / "pkgconfig")).split()
    run("cc", *STRICT, *CAPTION, *flags, "-o", tmp_path / "caption")
    check_program(tmp_path / "caption", ppm, LD_LIBRARY_PATH=str(libraries))
    version = run("pkg-config", "--modversion", "kosmos-edge", PKG_CONFIG_PATH=str(libraries / "pkgconfig"))
    assert version.strip() == capi.lib().kosmos_version().decode()


@linux
@needs("cc")
def test_a_c_program_finds_the_installed_library_with_cmake(prefix, ppm, tmp_path):
    run("cmake", "-S", ROOT / "examples" / "c", "-B", tmp_path, "-DPICTURES=ppm", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    check_program(tmp_path / "caption", ppm)


# ---- the wheel's copy


@pytest.fixture(scope="module")
def installed():
    try:
        return native_paths()
    except KosmosError as error:
        pytest.skip(str(error))


def native(*arguments: str) -> str:
    return run(sys.executable, "-m", "kosmos_edge.native", *arguments).strip()


def test_the_helper_names_what_is_there(installed):
    assert native("--library") == str(installed.library) and installed.library.is_file()
    assert native("--pkg-config") == str(installed.pkg_config) and native("--cmake") == str(installed.cmake)
    if not installed.include.exists():
        pytest.skip("the library was put here by hand, without its header")
    assert (installed.include / "kosmos.h").read_text() == (ROOT / "include" / "kosmos.h").read_text()
    assert (installed.pkg_config / "kosmos-edge.pc").is_file()
    assert (installed.cmake / "kosmos_edge-config.cmake").is_file()


def test_the_helper_says_how_it_is_used():
    out = subprocess.run([sys.executable, "-m", "kosmos_edge.native"], capture_output=True, text=True)
    assert out.returncode in (1, 2) and "kosmos_edge.native" in out.stderr and out.stdout == ""


@linux
@needs("cc")
def test_a_c_program_uses_the_wheel_s_library(installed, ppm, tmp_path):
    if not installed.include.exists():
        pytest.skip("the library was put here by hand, without its header")
    flags = native("--cflags", "--libs").split()
    run("cc", *STRICT, *CAPTION, *flags, "-o", tmp_path / "caption")
    check_program(tmp_path / "caption", ppm)


@linux
@needs("cc", "pkg-config", "cmake")
def test_pkg_config_and_cmake_find_the_wheel_s_library(installed, ppm, tmp_path):
    if not installed.include.exists():
        pytest.skip("the library was put here by hand, without its header")
    flags = run("pkg-config", "--cflags", "--libs", "kosmos-edge", PKG_CONFIG_PATH=native("--pkg-config")).split()
    run("cc", *STRICT, *CAPTION, *flags, "-o", tmp_path / "caption")
    check_program(tmp_path / "caption", ppm, LD_LIBRARY_PATH=str(installed.library.parent))
    found = f"-Dkosmos_edge_DIR={native('--cmake')}"
    run("cmake", "-S", ROOT / "examples" / "c", "-B", tmp_path / "b", "-DPICTURES=ppm", found)
    run("cmake", "--build", tmp_path / "b")
    check_program(tmp_path / "b" / "caption", ppm)
