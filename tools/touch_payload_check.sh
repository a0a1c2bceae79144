#!/usr/bin/env bash
# Proves that a stack which touched payload would be caught: builds a copy of
# the tree whose RX ring reads the first byte of every payload slot, and
# expects each transfer test to fail. Prints "PASS: ..." or "FAIL: ..." lines.
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
targets="$(bazel query 'attr(tags, transfer, kind(cc_test, //...))' 2>/dev/null)"
if [[ -z "$targets" ]]; then
  echo "FAIL: no test is tagged 'transfer'"
  exit 1
fi
for target in $targets; do
  log="$(mktemp)"
  bazel test --disk_cache="${XDG_CACHE_HOME:-$HOME/.cache}/devwire/disk" \
    --test_output=summary "$target" >"$log" 2>&1
  # 3: built, and a test failed.
  if (($? == 3)); then
    echo "PASS: $target fails when the RX ring touches payload"
  else
    tail -n 20 "$log" >&2
    echo "FAIL: $target does not notice that the RX ring touches payload"
  fi
done
bazel shutdown >/dev/null 2>&1
