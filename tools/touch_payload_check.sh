#!/usr/bin/env bash
# Proves that a stack which touched payload would be caught: builds a copy of
# the tree whose RX ring reads the first byte of every payload slot, and runs
# the tests tagged "transfer". Of a gtest each case is run by itself, and those
# that die of SIGSEGV are counted: a case that moves nothing into device memory
# may live on, and is named. A shell test has to fail. Prints "PASS: ..." or
# "FAIL: ..." lines.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ring=transport/verbs/rx_ring.cc
marker='// Payload address is known here.'
copy="$(mktemp -d)/devwire"
trap 'rm -rf "$(dirname "$copy")"' EXIT
mkdir -p "$copy"
git ls-files -z | xargs -0 cp --parents -t "$copy"
if ! grep -q "$marker" "$ring"; then
  echo "FAIL: $ring has no line '$marker'"
  exit 1
fi
# shellcheck disable=SC2016
sed -i "s|$marker|(void)*reinterpret_cast<volatile const char*>(payload_addr);|" \
  "$copy/$ring"
cd "$copy"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/devwire/disk"
failed=0

fail() {
  echo "FAIL: $*"
  failed=1
}

# check_cases TARGET: a gtest.
check_cases() {
  local name="${1#//}" died=0 alive=() suite="" line binary status
  binary="$copy/bazel-bin/${name/://}"
  cd "$binary.runfiles/devwire" || return
  while read -r line; do
    line="${line%% *}"
    if [[ "$line" == *. ]]; then
      suite="$line"
      continue
    fi
    DEVWIRE_VERBS_LIBRARY=softnic/libsoftnic.so timeout 60 "$binary" \
      --gtest_filter="$suite$line" >/dev/null 2>&1
    status=$?
    # SIGSEGV, or a death test whose child died of it.
    if ((status == 128 + 11 || status == 1)); then
      died=$((died + 1))
    else
      alive+=("$suite$line")
    fi
  done < <("$binary" --gtest_list_tests | grep -v "^Running main")
  cd "$copy" || return
  if ((died > 0)); then
    echo "PASS: $1: $died cases die of reading payload; not: ${alive[*]:-none}"
  else
    fail "$1 does not notice that the RX ring reads payload"
  fi
}

query() {
  bazel query "attr(tags, transfer, kind($1, //...))"
}
gtests="$(query cc_test)"
scripts="$(query sh_test)"
if [[ -z "$gtests" || -z "$scripts" ]]; then
  fail "no test is tagged 'transfer'"
  exit 1
fi
# shellcheck disable=SC2086
if ! bazel build --disk_cache="$cache" $gtests $scripts >&2; then
  fail "the copy does not build"
  exit 1
fi
for target in $gtests; do
  check_cases "$target"
done
for target in $scripts; do
  bazel test --disk_cache="$cache" "$target" >/dev/null 2>&1
  if (($? == 3)); then  # Built, and a test failed.
    echo "PASS: $target fails when the RX ring reads payload"
  else
    fail "$target does not notice that the RX ring reads payload"
  fi
done
bazel shutdown >/dev/null 2>&1
exit "$failed"
