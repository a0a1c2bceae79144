#!/usr/bin/env bash
# The example in README.md is the program that is compiled, and it runs.
# readme_check.sh README.md READMEEXAMPLE.CC READMEEXAMPLE LIBSOFTNIC
set -uo pipefail

failed=0
fail() {
  echo "FAIL: $*"
  failed=1
}

between() { # FILE: the lines between the markers, without indentation
  sed -n '/README begins/,/README ends/p' "$1" | sed '1d;$d;s/^  //'
}
in_readme() {
  sed -n '/^```cpp$/,/^```$/p' "$1" | sed '1d;$d'
}
if diff <(in_readme "$1") <(between "$2"); then
  echo "PASS: README.md shows the example that is compiled"
else
  fail "README.md and $2 differ"
fi

cable="$(mktemp -d)"
trap 'rm -rf "$cable"' EXIT
said="$(DEVWIRE_VERBS_LIBRARY="$PWD/$4" \
  SOFTNIC="dev=sn0,port=shm:$cable/c;dev=sn1,port=shm:$cable/c" \
  timeout 60 "$3")"
if [[ "$said" == "hello, device" ]]; then
  echo "PASS: the example runs"
else
  fail "the example printed '$said'"
fi
exit "$failed"
