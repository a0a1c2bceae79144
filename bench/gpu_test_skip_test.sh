#!/usr/bin/env bash
# Without a GPU's runtime gpu_test says what is missing, and exits with 77.
#
#   gpu_test_skip_test.sh GPU_TEST
set -uo pipefail
said="$("$1" --runtime libnot-there.so 2>&1)"
status=$?
if ((status == 77)) && [[ "$said" == "SKIP: gpu_test: "*libnot-there.so* ]]; then
  echo "PASS: gpu_test without a GPU is a skip with a reason"
else
  echo "$said"
  echo "FAIL: gpu_test without a GPU: status $status"
  exit 1
fi
