#!/bin/sh
# Fuzz the compiled halves under ASan and UBSan: tools/fuzz_sanitized.sh VENV/bin SECONDS_EACH [ARGUMENT]...
#
# build/sanitized has a copy of the package, whose compiled modules are built with the sanitizers, and the tests.
# Python itself is not: so the runtime of ASan is preloaded, and leaks, which Python's own are among, do not count.
set -eu
cd "$(dirname "$0")/.."
python=$(pwd)/$1/python seconds=$2
shift 2
asan=$(cc -print-file-name=libasan.so 2>/dev/null || true)
case $asan in
    /*) ;;
    *) echo "fuzz-sanitized: this C compiler has no libasan: nothing is fuzzed under sanitizers"; exit 0 ;;
esac
rm -rf build/sanitized
mkdir -p build/sanitized/tools
cp -r kvmbox build/sanitized/
cp tools/build_accelerator.py build/sanitized/tools/
ln -s ../../tests build/sanitized/tests
cd build/sanitized
export LD_PRELOAD="$asan" ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
CC="cc -fsanitize=address,undefined -fno-omit-frame-pointer" "$python" tools/build_accelerator.py
targets="rings-compiled windows socketpair pipe shm"
for target in $targets; do set -- "$@" --target "$target"; done
exec "$python" -m tests.fuzz.run --seconds "$seconds" "$@"
