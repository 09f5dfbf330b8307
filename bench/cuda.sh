#!/usr/bin/env bash
# The CUDA backend on a card: builds it, tests it, measures it beside its peers, prints one table (and leaves it in
# WORK/table.md). NEVER RUN on a card so far; the steps "checks" and "table" ran on the emulated device.
#
#   bench/cuda.sh [STEP ...]     build tests sanitizers checks memory measure table (default: all, in this order)
#
# Every step notes what came of it in WORK, so that they can be run one by one, and one that fails stops no other.
# Needs nvcc (CUDA 13), CMake, Ninja, a driver, and an environment with kosmos-edge and its test extra. No network, if
# these say where things are; what is not there is left out with the reason:
#   KOSMOS_EDGE_CUDA_WORK      folder for builds, models and results (default: build/cuda-bench), 20 GB
#   KOSMOS_EDGE_CUDA_LIBRARY   libkosmos_edge_cuda.so that is built already: step "build" has nothing to do
#   KOSMOS_EDGE_CUDA_MODEL     our file of full size, q4_k_m (default: made in WORK, with random weights)
#   KOSMOS_EDGE_LLAMA_SOURCE   llama.cpp's source (default: downloaded); compiled with CUDA in step "measure"
#   KOSMOS_EDGE_TORCH_PYTHON   an interpreter with transformers and torch for CUDA (default: python)
#   KOSMOS_EDGE_CUDA_ROUNDS    rounds of measurements (default: 5)
#   KOSMOS_EDGE_CUDA_SECONDS   step "measure" begins no pass that would end later; run it again to go on
#   KOSMOS_EDGE_CUDA_SCENES    scenes of nano whose answers are compared (default: 200)
#   KOSMOS_EDGE_CUDA_DEVICE    default: cuda
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
known="build tests sanitizers checks memory measure table"
steps=${*:-$known}
for step in $steps; do
  case " $known " in
    *" $step "*) ;;
    *)
      echo "unknown step '$step': expected some of $known" >&2
      exit 2
      ;;
  esac
done
work=${KOSMOS_EDGE_CUDA_WORK:-build/cuda-bench}
mkdir -p "$work" || exit 1
work=$(cd "$work" && pwd)
device=${KOSMOS_EDGE_CUDA_DEVICE:-cuda}
library=${KOSMOS_EDGE_CUDA_LIBRARY:-$work/build/libkosmos_edge_cuda.so}
unset PYTHONSAFEPATH # the programs of bench/ import each other; pytest must not find the checkout's package
given=${KOSMOS_EDGE_CUDA_LIBRARY:-}
model=${KOSMOS_EDGE_CUDA_MODEL:-$work/kosmos-2-q4_k_m.gguf}

note() { # step, true|false|null, words: instead of what was noted of the step before
  touch "$work/steps.jsonl"
  python - "$work/steps.jsonl" "$@" <<'PY'
import json
import sys
from pathlib import Path

file, (step, ok, said) = Path(sys.argv[1]), sys.argv[2:]
lines = [line for line in file.read_text().splitlines() if json.loads(line)["step"] != step]
lines.append(json.dumps({"step": step, "ok": json.loads(ok), "said": said}))
file.write_text("\n".join(lines) + "\n")
PY
}
attempt() { # step, log, command: its last line is what it said
  local step=$1 log=$work/$2 ok=true
  shift 2
  echo "== $step"
  "$@" >"$log" 2>&1 || ok=false
  [ $ok = true ] || tail -20 "$log"
  note "$step" $ok "$(grep -v -e '^$' -e '^{' "$log" | tail -1 | cut -c1-160)"
  [ $ok = true ]
}
replace() { # file, pattern of its lines to drop, log whose lines of JSON come instead
  touch "$work/$1"
  {
    grep -v -- "$2" "$work/$1"
    grep '^{' "$3"
  } >"$work/$1.new"
  mv "$work/$1.new" "$work/$1"
}

build() {
  if [ -n "$given" ]; then
    note build null "$given is given"
    return
  fi
  # shellcheck disable=SC2016
  attempt build build.log sh -c 'cmake -G Ninja -S . -B "$1" -DKOSMOS_EDGE_PYTHON=OFF -DKOSMOS_EDGE_CUDA=ON \
    -DKOSMOS_EDGE_CUDA_ARCHITECTURES="$2" && ninja -C "$1" kosmos_edge_cuda' \
    sh "$work/build" "${KOSMOS_EDGE_CUDA_ARCHITECTURES:-native}"
}
tests() { # of the emulated device, on the card
  PYTHONSAFEPATH=1 KOSMOS_EDGE_CUDA_CARD=$library attempt tests tests.log \
    python -m pytest -q -p no:cacheprovider tests/cuda/test_cuda_emulated.py tests/cuda/test_cuda_choice.py
}
sanitizers() {
  local tool failed=0
  for tool in memcheck racecheck synccheck initcheck; do
    if ! command -v compute-sanitizer >/dev/null; then
      note "compute-sanitizer $tool" null "compute-sanitizer is not installed"
      continue
    fi
    PYTHONSAFEPATH=1 KOSMOS_EDGE_CUDA_CARD=$library attempt "compute-sanitizer $tool" "$tool.log" \
      compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
      python -m pytest -q -x -p no:cacheprovider tests/cuda/test_cuda_emulated.py tests/cuda/test_cuda_choice.py \
      -k "products or attention or row or stacked or rule or best or draw" ||
      failed=1
  done
  return $failed
}
checks() {
  local failed=0
  attempt checks checks.log python bench/cuda/cuda_checks.py --device "$device" --scenes "${KOSMOS_EDGE_CUDA_SCENES:-200}" \
    --pictures "${KOSMOS_EDGE_CUDA_PICTURES:-20}" --tokens "${KOSMOS_EDGE_CUDA_TOKENS:-96}" || failed=1
  replace checks.jsonl '"bit-identical\|"logits\|"same ids' "$work/checks.log"
  return $failed
}
memory() {
  local failed=0
  if ! command -v nvidia-smi >/dev/null; then
    note memory null "nvidia-smi is not installed"
    return
  fi
  [ -f "$model" ] || attempt "our model" model.log python bench/cuda/cuda_peers.py --work "$work" --prepare || return 1
  attempt memory memory.log python bench/cuda/cuda_memory.py --device "$device" --model "$model" || failed=1
  replace checks.jsonl '"memory: ' "$work/memory.log"
  return $failed
}
measure() {
  local more=(--resume)
  [ -z "${KOSMOS_EDGE_CUDA_SECONDS:-}" ] || more+=(--seconds "$KOSMOS_EDGE_CUDA_SECONDS")
  attempt measure measure.log python bench/cuda/cuda_peers.py --work "$work" --device "$device" \
    --rounds "${KOSMOS_EDGE_CUDA_ROUNDS:-5}" "${more[@]}"
}
table() {
  python bench/cuda/cuda_table.py "$work" | tee "$work/table.md"
}

if ! python bench/cuda/cuda_card.py >"$work/card.new" 2>"$work/card.log"; then
  note card null "$(tail -1 "$work/card.log")"
else
  mv "$work/card.new" "$work/card.json"
fi
rm -f "$work/card.new"
status=0
for step in $steps; do
  [ "$step" = build ] || export KOSMOS_EDGE_CUDA_LIBRARY=$library
  "$step" || status=1
done
exit $status
