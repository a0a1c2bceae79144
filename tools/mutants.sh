#!/usr/bin/env bash
# Mutants: each patch in tools/mutants/ breaks one mechanism. A suite that does
# not notice one proves nothing about that mechanism.
#
#   tools/mutants.sh --check        every patch applies to this tree
#   tools/mutants.sh [NAME...]      applies each (all) to a scratch copy, builds
#                                   it and expects the transport tests to fail
#
# Prints "PASS: mutant NAME ..." or "FAIL: mutant NAME ..." each. Exit status 1
# when one failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/devwire"
readonly tests=(//transport/tcp/... //transport/engine/... //transport/sim/...)
failed=0

fail() {
  echo "FAIL: mutant $1: $2"
  failed=1
}

check() {
  local patch name
  for patch in tools/mutants/*.patch; do
    name="$(basename "$patch" .patch)"
    if git apply --check "$patch" 2>/dev/null; then
      echo "PASS: mutant $name applies"
    else
      fail "$name" "does not apply: write it anew"
    fi
  done
}

# run NAME: in the scratch copy, which is clean before and after.
run() {
  local patch="$PWD/tools/mutants/$1.patch" log="$scratch/mutant.log" status=0
  if ! git -C "$scratch/tree" apply "$patch"; then
    fail "$1" "does not apply: write it anew"
    return
  fi
  (cd "$scratch/tree" && bazel test --disk_cache="$cache/disk" --jobs="$jobs" \
    --test_output=errors "${tests[@]}") >"$log" 2>&1 || status=$?
  git -C "$scratch/tree" apply -R "$patch"
  case "$status" in
    0) fail "$1" "no test noticed it" ;;
    # Bazel: 3 is "built, and a test failed".
    3) echo "PASS: mutant $1 caught by" \
      "$(grep -oE '^//[^ ]+ +(FAILED|TIMEOUT)' "$log" | awk '{print $1}' |
        sort -u | paste -sd' ')" ;;
    *)
      tail -n 30 "$log" >&2
      fail "$1" "Bazel ended with $status" ;;
  esac
}

if [[ "${1:-}" == --check ]]; then
  check
  exit "$failed"
fi

jobs="${MUTANT_JOBS:-2}"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/tree"
git archive HEAD | tar -x -C "$scratch/tree"
git -C "$scratch/tree" init -q
names=("$@")
if ((${#names[@]} == 0)); then
  for patch in tools/mutants/*.patch; do
    names+=("$(basename "$patch" .patch)")
  done
fi
for name in "${names[@]}"; do run "$name"; done
(cd "$scratch/tree" && bazel shutdown)
exit "$failed"
