#!/usr/bin/env bash
# The gather kernel compiles with every compiler that is installed, and the PTX
# of the tree is what clang-14 makes of it. Prints "PASS: ...", "FAIL: ..." or,
# for a compiler that is missing, "SKIP: ...".
#
#   gather_objects_test.sh gather_objects.sh gather_kernel.cu gather_kernel.ptx
set -uo pipefail
script="$1" kernel="$2" ptx="$3"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
failed=0

check() {  # check WHAT COMMAND...
  local what="$1"
  shift
  if "$@" >"$out/log" 2>&1; then
    echo "PASS: $what"
  else
    cat "$out/log"
    echo "FAIL: $what"
    failed=1
  fi
}

"$script" "$kernel" "$out" || { echo "FAIL: $script"; failed=1; }
if [[ -s "$out/gather_kernel.ptx" ]]; then
  check "the tree's PTX is of its kernel (else run gather_objects.sh)" \
    cmp "$ptx" "$out/gather_kernel.ptx"
fi
if [[ -s "$out/gather_kernel.hsaco" ]]; then
  for target in gfx908 gfx90a gfx1030; do
    check "the AMD object has $target" \
      grep -qa "amdgcn-amd-amdhsa--$target" "$out/gather_kernel.hsaco"
  done
fi

# Not on every PATH where CUDA is installed.
nvcc="$(command -v nvcc || true)"
[[ -z "$nvcc" && -x /usr/local/cuda/bin/nvcc ]] && nvcc=/usr/local/cuda/bin/nvcc
if [[ -n "$nvcc" ]]; then
  check "nvcc compiles the gather kernel for sm_90" \
    "$nvcc" -arch=sm_90 -cubin -Werror all-warnings -o "$out/k.cubin" "$kernel"
else
  echo "SKIP: the gather kernel by nvcc: not installed"
fi
exit "$failed"
