#!/usr/bin/env bash
# Random call sequences under AddressSanitizer and UndefinedBehaviorSanitizer:
#   tests/native/capi_fuzz.sh BUILD_DIR MODEL.gguf [SEQUENCES=100000] [SEED=1] [THREADS=2]
# Builds the C library and the driver with the sanitizers into BUILD_DIR (kept, so that a second run is quick).
# A tiny model (tests/tiny.py) is right for this: python -c "from tiny import write_tiny; write_tiny('tiny.gguf')"
set -euo pipefail
build=$1 model=$2 sequences=${3:-100000} seed=${4:-1} threads=${5:-2}
root=$(cd "$(dirname "$0")/../.." && pwd)
flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"
if [ ! -f "$build/CMakeCache.txt" ]; then
  cmake -S "$root" -B "$build" -DKOSMOS_EDGE_PYTHON=OFF -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1 $flags" \
    -DCMAKE_SHARED_LINKER_FLAGS="-Wl,-z,nodefs"
fi
cmake --build "$build" --target kosmos_edge
cc -std=c99 -D_POSIX_C_SOURCE=200809L -O1 $flags -I"$root/include" "$root/tests/native/capi_fuzz.c" -L"$build" \
  -lkosmos_edge -Wl,-rpath,"$(cd "$build" && pwd)" -pthread -o "$build/capi_fuzz"
export ASAN_OPTIONS=abort_on_error=0:detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
exec "$build/capi_fuzz" "$model" "$seed" "$sequences" "$threads"
