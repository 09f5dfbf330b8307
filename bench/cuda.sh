#!/usr/bin/env bash
# The CUDA backend on a card: builds it, tests it, measures it, prints one table. Label: NEVER RUN so far; no card was at
# hand when it was written. Needs nvcc (CUDA 13), a driver, and an environment with the package's test extra.
# Peers are not measured yet.
#
#   bench/cuda.sh [MODEL.gguf]     default: nano; give the full-size file for the figures that matter
set -euo pipefail
cd "$(dirname "$0")/.."
model=${1:-kosmos_edge/data/nano-q4_k_m.gguf}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem --format=csv
cmake -G Ninja -S . -B "$work/build" -DKOSMOS_EDGE_PYTHON=OFF -DKOSMOS_EDGE_CUDA=ON \
  -DKOSMOS_EDGE_CUDA_ARCHITECTURES="${KOSMOS_EDGE_CUDA_ARCHITECTURES:-native}" >"$work/cmake.log"
ninja -C "$work/build" kosmos_edge_cuda >"$work/ninja.log"
export KOSMOS_EDGE_CUDA_LIBRARY="$work/build/libkosmos_edge_cuda.so"
export KOSMOS_EDGE_CUDA_CARD=$KOSMOS_EDGE_CUDA_LIBRARY  # the tests of the emulated device, on the card
python -c 'from kosmos_edge import _core; import sys; why = dict(_core.devices())["cuda"]; sys.exit(why or 0)'

echo "== operations and models against the processor"
pytest -q tests/test_cuda_emulated.py

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do
    echo "== compute-sanitizer $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
      python -m pytest -q -x tests/test_cuda_emulated.py -k "products or attention or rows"
  done
else
  echo "== compute-sanitizer is not installed: skipped"
fi

echo "== measurements"
python bench/cuda_table.py --model "$model"
