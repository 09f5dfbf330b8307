#!/usr/bin/env bash
# Builds the programs of this folder for 64-bit ARM Linux, to be run under qemu-aarch64: cross.sh BUILD_FOLDER
# Needs cmake and g++-aarch64-linux-gnu. Kernels have their own flags; the rest is compiled quickly.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cmake -S "$root" -B "$1" ${CMAKE_ARGS:-} -DKOSMOS_EDGE_SELFTEST=ON -DKOSMOS_EDGE_PYTHON=OFF -DCMAKE_SYSTEM_NAME=Linux \
  -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DCMAKE_EXE_LINKER_FLAGS=-static -DSKBUILD_PROJECT_VERSION=0 \
  -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG" >/dev/null
cmake --build "$1" --parallel "${JOBS:-2}" --target selftest caption allocations
