#!/usr/bin/env bash
# Random call sequences under AddressSanitizer and UndefinedBehaviorSanitizer:
#   tests/native/capi_fuzz.sh BUILD_DIR MODEL.gguf [SEQUENCES=100000] [SEED=1] [THREADS=2]
# Builds the C library and the driver with the sanitizers into BUILD_DIR (kept, so that a second run is quick). The
# kernels are not instrumented, for speed: .ci/sanitize has a shorter run with them.
# A tiny model (tests/helpers/api_model.py's grounded_file) is right for this.
set -euo pipefail
build=$1 model=$2 sequences=${3:-100000} seed=${4:-1} threads=${5:-2}
root=$(cd "$(dirname "$0")/../.." && pwd)
if [ ! -f "$build/CMakeCache.txt" ]; then
  cmake -S "$root" -B "$build" -DKOSMOS_EDGE_PYTHON=OFF -DKOSMOS_EDGE_SANITIZE=address,undefined \
    -DKOSMOS_EDGE_SANITIZE_KERNELS=OFF -DKOSMOS_EDGE_ISAS=avx2
fi
cmake --build "$build" --target kosmos_edge
cc -std=c99 -D_POSIX_C_SOURCE=200809L -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all \
  -I"$root/include" "$root/tests/native/capi_fuzz.c" -L"$build" \
  -lkosmos_edge -Wl,-rpath,"$(cd "$build" && pwd)" -pthread -o "$build/capi_fuzz"
export ASAN_OPTIONS=abort_on_error=0:detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
exec "$build/capi_fuzz" "$model" "$seed" "$sequences" "$threads"
