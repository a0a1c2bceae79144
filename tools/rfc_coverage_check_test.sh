#!/usr/bin/env bash
# rfc_coverage_check.py finds what is broken: a copy of the page is damaged in
# one way at a time, and the check must fail for it. Run from the tree's root.
set -uo pipefail

failed=0
copy="$(mktemp -d)"
trap 'rm -rf "$copy"' EXIT
git ls-files -co --exclude-standard -- '*.cc' '*.h' '*.py' '*.sh' '*.md' |
  xargs cp --parents -t "$copy" 2>/dev/null
page="$copy/docs/rfc_coverage.md"
whole="$(cat "$page")"

# expect WORDS SED-SCRIPT: the damaged page makes the check say WORDS.
expect() {
  sed -E "$2" <<<"$whole" >"$page"
  local said
  said="$(tools/rfc_coverage_check.py "$copy")"
  if [[ $? -eq 1 && "$said" == *"$1"* ]]; then
    echo "PASS: rfc coverage check: $1"
  else
    echo "FAIL: rfc coverage check does not say '$1'"
    failed=1
  fi
}

expect "MUST-15 has 0 rows" '/^\| MUST-15 \|/d'
expect "SHLD-31 has 0 rows" '/^\| SHLD-31 \|/d'
expect "MUST-38 has 2 rows" '/^\| MUST-38 \|/p'
expect "RFC 9293 has no MUST-70" 's/^\| MUST-1 \|/| MUST-70 |/'
expect "there is no test OpenTrace.NoSuchTest" \
  '/^\| MUST-10 \|/s/`OpenTrace\.\w+`/`OpenTrace.NoSuchTest`/'
expect "there is no file keepalive2.cc" 's/`keepalive\.cc`/`keepalive2.cc`/'
expect "MUST-10 names no test" '/^\| MUST-10 \|/s/`OpenTrace\.\w+`//'
expect "MUST-51 says no without a decision" \
  '/^\| MUST-51 \|/s/\[[^]]*\]\([^)]*\)//'
expect "there is no decisions/0000-none.md" \
  '/^\| MUST-51 \|/s/\(decisions[^)]*\)/(decisions\/0000-none.md)/'
exit "$failed"
