#!/usr/bin/env bash
# The demo on 64 MiB through 4 MiB pools: it passes; with a byte flipped on the
# way it fails, and says why.
#   demo_test.sh DEMO.PY DWCAT LIBSOFTNIC
set -uo pipefail

demo() {
  python3 "$1" --dwcat "$2" --softnic "$3" --size $((64 << 20)) \
    --pool-bytes $((4 << 20)) "${@:4}" 2>&1
}

failed=0
if out="$(demo "$@")"; then
  echo "PASS: the demo"
else
  echo "FAIL: the demo"
  failed=1
fi
echo "$out"
if out="$(demo "$@" --corrupt)"; then
  echo "FAIL: the demo did not notice a flipped byte"
  failed=1
elif grep -q "hash differs" <<<"$out"; then
  echo "PASS: the demo fails when a byte is flipped"
else
  echo "FAIL: with a byte flipped the demo failed for another reason"
  failed=1
fi
echo "$out"
exit "$failed"
