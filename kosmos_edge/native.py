"""Paths of the C library: `python -m kosmos_edge.native --cflags --libs` for a compiler, native_paths() for programs.

The wheel holds the shared library, kosmos.h, a pkg-config file and a CMake package.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import kosmos_edge
from kosmos_edge.cli.streams import plain_error, standard_streams
from kosmos_edge.errors import KosmosError

LIBRARIES = ("libkosmos_edge.so.0", "libkosmos_edge.0.dylib", "kosmos_edge.dll")


@dataclass(frozen=True, slots=True)
class NativePaths:
    """Paths for builds that use kosmos.h."""

    library: Path  # the shared library itself, for ctypes and the like
    include: Path  # the folder of kosmos.h
    pkg_config: Path  # the folder of kosmos-edge.pc, for PKG_CONFIG_PATH
    cmake: Path  # the folder of kosmos_edge-config.cmake, for kosmos_edge_DIR

    @property
    def cflags(self) -> list[str]:
        """Arguments for compiling."""
        return [f"-I{self.include}"]

    @property
    def libs(self) -> list[str]:
        """Arguments for linking; the program finds the library there at run time."""
        return [str(self.library), f"-Wl,-rpath,{self.library.parent}"]


def native_paths() -> NativePaths:
    """The paths in this installation; in a source tree those of the installed package. KosmosError without one."""
    packages = [Path(folder).resolve() for folder in kosmos_edge.__path__]
    for package in packages:
        for name in LIBRARIES:
            library = package / "lib" / name
            if library.is_file():
                return NativePaths(
                    library,
                    package / "include",
                    package / "lib" / "pkgconfig",
                    package / "lib" / "cmake" / "kosmos_edge",
                )
    raise KosmosError(f"{packages[0] / 'lib'}: no C library; an installed wheel has one ({', '.join(LIBRARIES)})")


def main(arguments: list[str] | None = None) -> int:
    """The command line: one line on stdout, in pkg-config's manner."""
    with standard_streams():
        try:
            status = _run(arguments)
            sys.stdout.flush()
            return status
        except (KosmosError, OSError) as error:
            print(f"kosmos_edge.native: {plain_error(error)}", file=sys.stderr)
            return 1


def _run(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kosmos_edge.native", description="Paths of the C library.")
    parser.add_argument("--cflags", action="store_true", help="arguments for compiling")
    parser.add_argument("--libs", action="store_true", help="arguments for linking")
    for name in ("library", "include", "pkg-config", "cmake"):
        parser.add_argument(f"--{name}", action="store_true", help=f"the path native_paths().{name.replace('-', '_')}")
    given = parser.parse_args(arguments)
    paths = native_paths()
    out = [*(paths.cflags if given.cflags else []), *(paths.libs if given.libs else [])]
    out += [str(getattr(paths, name)) for name in ("library", "include", "pkg_config", "cmake") if getattr(given, name)]
    if not out:
        parser.print_usage(sys.stderr)
        return 2
    print(shlex.join(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
