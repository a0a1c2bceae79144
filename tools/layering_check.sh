#!/usr/bin/env bash
# Asks Bazel what the rooms depend on, and fails where ARCHITECTURE.md says
# they must not. One line per claim, "PASS: ..." or "FAIL: ...".
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# no_path FROM TO: no target under FROM reaches one under TO.
no_path() {
  local from="$1" to="$2" path
  # Tests may use rooms below them that the room itself must not.
  local libraries="kind('cc_library|cc_binary', $from/...) except attr(testonly, 1, $from/...)"
  if ! path="$(bazel query "somepath($libraries, $to/...)" 2>/dev/null)"; then
    echo "FAIL: layering: the query $from -> $to did not run"
  elif [[ -n "$path" ]]; then
    echo "$path"
    echo "FAIL: layering: $from reaches $to"
  else
    echo "PASS: layering: $from does not reach $to"
  fi
}

no_path //transport/tcp //transport/verbs
no_path //transport/tcp //transport/engine
no_path //transport/tcp //sockets
no_path //transport/wire //transport/tcp
no_path //transport/verbs //transport/tcp
no_path //transport/engine //transport/verbs
no_path //softnic //transport
no_path //softnic //memreg
no_path //memreg //transport
no_path //sockets //softnic
